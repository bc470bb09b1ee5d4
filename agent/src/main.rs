//! `mainstay-agent`: starts what the library holds.

fn main() -> std::process::ExitCode {
    mainstay_agent::run()
}
