//! The executable in front of an artifact.

fn main() -> std::process::ExitCode {
    llamac_runner::artifact::main()
}
