//! The `outrigger` program: everything it does is in `outrigger::app`.

use std::process::ExitCode;

/// Quicker than the system's where many requests are in flight, and gives memory back after a burst.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    outrigger::app::cli::main(std::env::args_os())
}
