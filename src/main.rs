//! Parses the command line, runs the command, and maps the result to an exit code.

use std::process::ExitCode;

use clap::Parser;
use pgstrata::cli::Cli;
use pgstrata::report::{self, Output};
use pgstrata::{command, failpoint};
use tracing_subscriber::{EnvFilter, fmt};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::detect(cli.everywhere.json, cli.everywhere.quiet, cli.everywhere.color);
    trace(cli.everywhere.verbose, output.color_stderr);
    let result = failpoint::arm().and_then(|()| command::run(cli, output));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::print_error(&output, &error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Configures logging to stderr, which is off by default. Log records of pgstrata name job, phase and chunk; those of
/// the driver contain statements. Neither contains values of rows.
fn trace(verbose: u8, color: bool) {
    let level = match verbose {
        0 => "off",
        1 => "pgstrata=debug",
        _ => "pgstrata=trace,tokio_postgres=debug",
    };
    fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(false)
        .init();
}
