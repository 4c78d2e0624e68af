//! What callgrind counts of a program: instructions outside the kernel, and calls of whatever gives memory out.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

/// The system's, jemalloc's, and what Rust calls of jemalloc for other than usual alignments. (glibc's `posix_memalign`
/// asks `malloc` for usual ones.)
const ALLOCATORS: [&str; 8] =
    ["malloc", "calloc", "realloc", "_rjem_malloc", "_rjem_calloc", "_rjem_realloc", "_rjem_mallocx", "_rjem_rallocx"];

#[derive(Clone, Copy)]
pub struct Counts {
    pub instructions: f64,
    pub allocations: f64,
}

/// `valgrind` that writes to a file in `folder`; the program and its arguments are to follow.
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out(folder)));
    command
}

fn out(folder: &Path) -> String {
    folder.join("callgrind").display().to_string()
}

/// The counts of a program that has ended.
pub fn counts(folder: &Path) -> Counts {
    let text = std::fs::read(out(folder)).expect("valgrind has written its counts");
    let text = String::from_utf8_lossy(&text);
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    let instructions = totals.and_then(|count| count.trim().parse().ok()).expect("a total");
    Counts { instructions, allocations: allocations(&text) as f64 }
}

/// Functions are named once, as `(number) name`, and later by their number alone; a call is `cfn=` and then `calls=`.
fn allocations(text: &str) -> u64 {
    let (mut ours, mut called, mut count) = (HashSet::new(), "", 0);
    for line in text.lines() {
        let function = line.strip_prefix("fn=").or(line.strip_prefix("cfn="));
        if let Some((number, name)) = function.and_then(|function| function.split_once(") "))
            && ALLOCATORS.contains(&name)
        {
            ours.insert(number);
        }
        if let Some(function) = line.strip_prefix("cfn=") {
            called = function.split(')').next().unwrap_or_default();
        } else if let Some(calls) = line.strip_prefix("calls=")
            && ours.contains(called)
        {
            count += calls.split(' ').next().and_then(|calls| calls.parse::<u64>().ok()).expect("a number of calls");
        }
    }
    count
}
