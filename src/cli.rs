//! The command line as types. `command` implements the commands.

use std::{fmt, path::PathBuf, time::Duration};

use chrono::NaiveTime;
use clap::{Args, ColorChoice, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  the command failed; the job's state is kept
  2  the command line or the plan is invalid
  3  the check found an error
  4  verification found a difference
  5  gave up waiting for a lock, an older transaction or an empty change log ([swap] in the plan)
  6  stopped at a deadline, on request or outside the windows, or too early to finalize; run again
  7  another process is already running this job

Example:
  pgstrata plan public.events --by created_at --every month -o events.toml
  pgstrata check events.toml
  pgstrata run events.toml
  pgstrata swap events

The connection settings are those of psql:
  PGHOST, PGPORT, PGUSER, PGDATABASE, PGPASSWORD, ~/.pgpass, PGSERVICE, PGSSLMODE, PGSSLROOTCERT";

/// Change live PostgreSQL tables while applications use them: partition a table, backfill columns, or change the
/// type of a column
#[derive(Debug, Parser)]
#[command(name = "pgstrata", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub everywhere: Everywhere,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Everywhere {
    /// The server: a postgres:// URL, or host=... dbname=...; other users can see a command line, so PGSERVICE or PG*
    /// variables are safer
    #[arg(long, global = true, value_name = "CONNECTION", env = "DATABASE_URL", hide_env_values = true)]
    pub dsn: Option<Dsn>,
    /// Print JSON to stdout: one object, or one object per line while a command runs
    #[arg(long, global = true)]
    pub json: bool,
    /// Print only results, warnings and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Log details to stderr; repeat the option for more
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// When to color the output
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,
}

/// A connection string. It is never printed, because it may contain a password.
#[derive(Clone)]
pub struct Dsn(String);

impl Dsn {
    /// The connection string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Dsn {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dsn")
    }
}

fn limit(written: &str) -> Result<Duration, String> {
    let limit = humantime::parse_duration(written).map_err(|e| {
        format!(
            "{e}; write, for example, 2h or \
        90min"
        )
    })?;
    if limit.is_zero() { Err("the duration must be greater than zero".to_owned()) } else { Ok(limit) }
}

fn time_of_day(written: &str) -> Result<NaiveTime, String> {
    NaiveTime::parse_from_str(written, "%H:%M")
        .map_err(|_| "write hours and minutes, for example 05:00".to_owned())
}

/// The options of `plan`.
#[derive(Debug, Args)]
pub struct PlanOptions {
    /// The table, quoted as in SQL: public.events, "Forecasts"."Price Forecasts"
    pub table: String,
    /// The partition column, as in the catalog or quoted as in SQL; default: the best one, with the reasons and the alternatives as comments
    #[arg(long, value_name = "COLUMN")]
    pub by: Option<String>,
    /// The range of one partition: month, "2 weeks", 100_000; default: suggested from the size of the table
    #[arg(long, value_name = "INTERVAL")]
    pub every: Option<String>,
    /// Write the plan of a backfill
    #[arg(long, conflicts_with_all = ["by", "every", "retype"])]
    pub backfill: bool,
    /// For a backfill: a column and its value, SQL over the row, which is called t; repeat the option for more
    #[arg(long, value_name = "COLUMN=EXPRESSION", requires = "backfill")]
    pub set: Vec<String>,
    /// For a backfill: a column to add first, and its type; repeat the option for more
    #[arg(long, value_name = "COLUMN=TYPE", requires = "backfill")]
    pub add: Vec<String>,
    /// Write the plan of a column type change: the column and its new type
    #[arg(long, value_name = "COLUMN=TYPE", conflicts_with_all = ["by", "every"])]
    pub retype: Option<String>,
    /// Write the plan to this file, and only the advice to stdout
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read a live table and write a commented plan: to partition it by the best column, or by the one that is given, to
    /// backfill it, or to change the type of a column
    #[command(
        after_help = "Example:\n  pgstrata plan public.events -o events.toml\n  pgstrata plan public.events --by created_at --every month -o events.toml\n  pgstrata plan suppliers --backfill --add search_name=text --set 'search_name=lower(t.name)'\n  pgstrata plan orders --retype id=bigint -o orders_id.toml"
    )]
    Plan(PlanOptions),
    /// Report all errors and warnings of a plan, without changing anything; with -v, also list the objects that are
    /// carried over
    #[command(
        after_help = "Example:\n  pgstrata check events.toml\n  pgstrata check events.toml -v\n  pgstrata check backfill.toml --sample 1000"
    )]
    Check {
        /// The plan file
        plan: PathBuf,
        /// For a backfill: fill about this many rows and roll back; reports rows that still match, rows that fail
        /// (with their keys), and how long the whole backfill would take
        #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
        sample: Option<u32>,
    },
    /// Print every statement that a run would send, phase by phase, without changing anything
    #[command(after_help = "Example:\n  pgstrata sql events.toml | less")]
    Sql {
        /// The plan file
        plan: PathBuf,
    },
    /// Start or continue the job of a plan (partition, backfill or column type change), up to and including
    /// verification; a backfill runs to its end
    #[command(
        after_help = "Example:\n  pgstrata run events.toml --swap\n  0 22 * * *  pgstrata run backfill.toml --until 05:00 --quiet"
    )]
    Run {
        /// The plan file
        plan: PathBuf,
        /// Swap after verification, even if the plan has `when = "manual"`; not for a backfill
        #[arg(long)]
        swap: bool,
        /// Stop after this duration (2h, 90min), between two chunks, with exit code 6
        #[arg(long = "for", value_name = "DURATION", value_parser = limit, conflicts_with = "until")]
        limit: Option<Duration>,
        /// Stop at this time of day, in the time zone of the plan's `[throttle]` section, with exit code 6
        #[arg(long, value_name = "HH:MM", value_parser = time_of_day)]
        until: Option<NaiveTime>,
    },
    /// Pause a job before its next chunk, until `pgstrata resume`; works from any machine
    #[command(after_help = "Example:\n  pgstrata pause events")]
    Pause {
        /// The job's name
        job: String,
    },
    /// Resume a paused job
    #[command(after_help = "Example:\n  pgstrata resume events")]
    Resume {
        /// The job's name
        job: String,
    },
    /// Change the throttling of a job while it runs; the settings apply until the job ends
    #[command(
        after_help = "Example:\n  pgstrata set events workers=2 rows_per_second=20000 max_replica_lag=5s"
    )]
    Set {
        /// The job's name
        job: String,
        /// workers, target_batch_ms, or any key of the plan's `[throttle]` section; the value `off` removes a limit
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Show the state of a job, or of all jobs
    #[command(after_help = "Example:\n  pgstrata status events --watch")]
    Status {
        /// The job's name; default: all jobs
        job: Option<String>,
        /// Refresh the display every second
        #[arg(long)]
        watch: bool,
    },
    /// Compare both tables or both columns now; for a backfill, check every row again
    #[command(after_help = "Example:\n  pgstrata verify events --json")]
    Verify {
        /// The job's name
        job: String,
    },
    /// Apply pending changes, verify, and exchange the names of the two tables or columns; not for a backfill
    #[command(after_help = "Example:\n  pgstrata swap events")]
    Swap {
        /// The job's name
        job: String,
    },
    /// Reverse the swap, and keep everything that was written since
    #[command(after_help = "Example:\n  pgstrata rollback events")]
    Rollback {
        /// The job's name
        job: String,
    },
    /// Apply pending changes to the inactive table or column, and exit; for use from cron
    #[command(after_help = "Example:\n  */5 * * * *  pgstrata sync events --quiet")]
    Sync {
        /// The job's name
        job: String,
    },
    /// End the rollback window: drop the old table or column
    #[command(after_help = "Example:\n  pgstrata finalize events")]
    Finalize {
        /// The job's name
        job: String,
        /// Finalize even if the plan's keep_old has not passed yet
        #[arg(long)]
        now: bool,
    },
    /// Maintain a partitioned table: create partitions ahead of time, apply retention, refresh statistics; for use
    /// from cron
    #[command(
        after_help = "Example:\n  17 3 * * *  pgstrata maintain events --quiet\n  pgstrata maintain --table public.clicks"
    )]
    Maintain {
        /// The job's name; default: the tables of all jobs
        job: Option<String>,
        /// Any partitioned table, including tables that pgstrata did not create; the interval and the names are
        /// derived from its partitions
        #[arg(long, value_name = "TABLE", conflicts_with = "job")]
        table: Option<String>,
    },
    /// Abort a job that is not swapped: remove everything that it created; for a backfill, remove its trigger and
    /// unfinished constraints and indexes
    #[command(after_help = "Example:\n  pgstrata abort events")]
    Abort {
        /// The job's name
        job: String,
    },
    /// Explain what a finding means, why it matters and what to do; without a code, list all codes
    #[command(after_help = "Example:\n  pgstrata explain key_widened")]
    Explain {
        /// The code that `check` prints in brackets, such as key_widened
        code: Option<String>,
    },
    /// Run a complete job on a private server under write load; takes about a minute
    #[command(after_help = "Example:\n  pgstrata demo")]
    Demo {
        /// Leave the server running, and print how to connect to it
        #[arg(long)]
        keep: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The help text for a terminal of 100 columns, independent of the environment.
    fn help(of: Option<&str>) -> String {
        let mut command = Cli::command().term_width(100).color(ColorChoice::Never);
        command.build();
        let command = match of {
            Some(name) => command.find_subcommand_mut(name).unwrap(),
            None => &mut command,
        };
        command.render_help().to_string()
    }

    #[test]
    fn the_types_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        insta::assert_snapshot!("help", help(None));
        let names: Vec<String> = Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
        for name in names {
            let text = help(Some(&name));
            assert!(text.contains("Example:\n") && text.contains(&format!("pgstrata {name}")), "{name}");
            insta::assert_snapshot!(format!("help_{name}"), text);
        }
    }

    /// `docs/commands.md` and the README list every command. `docs/commands.md` lists every exit code that the help
    /// lists.
    #[test]
    fn every_command_and_exit_code_is_documented() {
        let (commands, readme) = (include_str!("../docs/commands.md"), include_str!("../README.md"));
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            for text in [commands, readme] {
                let row = |line: &str| {
                    line.starts_with("| ")
                        && [" ", "`"].iter().any(|end| line.contains(&format!("`{name}{end}")))
                };
                assert!(text.lines().any(row), "{name} is not documented");
            }
        }
        let codes = EXIT_CODES.lines().filter_map(|line| line.trim().split_once("  "));
        for (code, _) in codes.filter(|(code, _)| code.len() == 1) {
            assert!(
                commands.lines().any(|line| line.starts_with(&format!("| {code} |"))),
                "exit code {code}"
            );
        }
    }

    #[test]
    fn options_work_before_and_after_the_command_and_passwords_are_hidden() {
        for line in [["pgstrata", "--json", "verify", "j"], ["pgstrata", "verify", "j", "--json"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(cli.everywhere.json);
            assert!(matches!(cli.command, Command::Verify { job } if job == "j"));
        }
        let cli = Cli::try_parse_from(["pgstrata", "status", "--dsn", "postgres://u:s3cret@h/d"]).unwrap();
        assert!(!format!("{cli:?}").contains("s3cret"));
        assert_eq!(cli.everywhere.dsn.unwrap().as_str(), "postgres://u:s3cret@h/d");
        assert!(Cli::try_parse_from(["pgstrata", "plan", "t"]).is_ok());
        assert!(Cli::try_parse_from(["pgstrata", "plan"]).is_err());
        assert!(Cli::try_parse_from(["pgstrata", "plan", "t", "--backfill", "--by", "c"]).is_err());
        assert!(Cli::try_parse_from(["pgstrata", "plan", "t", "--set", "a=b"]).is_err());
        assert!(Cli::try_parse_from(["pgstrata"]).is_err());
        assert!(Cli::try_parse_from(["pgstrata", "run", "p", "--for", "2h"]).is_ok());
        assert!(Cli::try_parse_from(["pgstrata", "run", "p", "--until", "05:00"]).is_ok());
        for wrong in [["--for", "0s"], ["--for", "soon"], ["--until", "5 o'clock"], ["--until", "24:00"]] {
            assert!(Cli::try_parse_from([&["pgstrata", "run", "p"][..], &wrong].concat()).is_err());
        }
    }
}
