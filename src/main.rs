//! The `outrigger` program: everything it does is in `outrigger::app`.

use std::process::ExitCode;

fn main() -> ExitCode {
    outrigger::app::cli::main(std::env::args_os())
}
