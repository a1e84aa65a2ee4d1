//! The command line as types, nothing else: what it means is decided where it is run.

use std::{fmt, path::PathBuf, time::Duration};

use chrono::NaiveTime;
use clap::{Args, ColorChoice, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed; the job's state is kept
  2  the command line or the plan is wrong
  3  preflight found an error
  4  verification found a difference
  5  a lock could not be acquired
  6  stopped early as asked; run again to go on
  7  another process drives this job

Example:
  pgstrata plan public.events --by created_at --every month -o events.toml
  pgstrata check events.toml
  pgstrata run events.toml
  pgstrata swap events

The connection is found as psql finds it:
  PGHOST, PGPORT, PGUSER, PGDATABASE, PGPASSWORD, ~/.pgpass, PGSERVICE, PGSSLMODE, PGSSLROOTCERT";

/// Change live PostgreSQL tables while everybody writes to them: partition one, or fill columns of its rows
#[derive(Debug, Parser)]
#[command(name = "pgstrata", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub everywhere: Everywhere,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Everywhere {
    /// Where to connect: a postgres:// URL, or host=... dbname=...; better kept in PGSERVICE or PG* variables, because
    /// others can see a command line
    #[arg(long, global = true, value_name = "CONNECTION", env = "DATABASE_URL", hide_env_values = true)]
    pub dsn: Option<Dsn>,
    /// JSON on stdout: one object, or one a line while something runs
    #[arg(long, global = true)]
    pub json: bool,
    /// Only results, warnings and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// More of what happens, on stderr; twice for even more
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Colored output
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,
}

/// A connection string; never shown, because it may hold a password.
#[derive(Clone)]
pub struct Dsn(String);

impl Dsn {
    /// The string itself.
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
    let limit = humantime::parse_duration(written).map_err(|e| format!("{e}; write 2h, 90min"))?;
    if limit.is_zero() { Err("nothing can be done in no time".to_owned()) } else { Ok(limit) }
}

fn time_of_day(written: &str) -> Result<NaiveTime, String> {
    NaiveTime::parse_from_str(written, "%H:%M").map_err(|_| "write hours and minutes: 05:00".to_owned())
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read a live table and write a commented plan to partition it
    #[command(
        after_help = "Example:\n  pgstrata plan public.events --by created_at --every month -o events.toml"
    )]
    Plan {
        /// The table, quoted as in SQL: public.events, "Forecasts"."Price Forecasts"
        table: String,
        /// The column to partition by
        #[arg(long, value_name = "COLUMN")]
        by: String,
        /// How much one partition holds: month, "2 weeks", 100_000; suggested from the table's size where left out
        #[arg(long, value_name = "INTERVAL")]
        every: Option<String>,
        /// Write the plan to this file instead of stdout
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Say everything that is in the plan's way, and with -v what comes along; change nothing
    #[command(
        after_help = "Example:\n  pgstrata check events.toml\n  pgstrata check events.toml -v\n  pgstrata check backfill.toml --sample 1000"
    )]
    Check {
        /// The plan's file
        plan: PathBuf,
        /// Of a backfill: fill about so many rows and roll that back; say what still matches, what fails by its key, and how
        /// long all of it would take
        #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
        sample: Option<u32>,
    },
    /// Print every statement that a run would send, phase by phase; change nothing
    #[command(after_help = "Example:\n  pgstrata sql events.toml | less")]
    Sql {
        /// The plan's file
        plan: PathBuf,
    },
    /// Start the plan's job, or go on with it: until both tables are verified to be the same, or every row is filled
    #[command(
        after_help = "Example:\n  pgstrata run events.toml --swap\n  0 22 * * *  pgstrata run backfill.toml --until 05:00 --quiet"
    )]
    Run {
        /// The plan's file
        plan: PathBuf,
        /// Then swap, whatever the plan says; a backfill has no swap
        #[arg(long)]
        swap: bool,
        /// Stop after so long, between two chunks: 2h, 90min; exit code 6
        #[arg(long = "for", value_name = "DURATION", value_parser = limit, conflicts_with = "until")]
        limit: Option<Duration>,
        /// Stop when it is next that time of the day, by the clocks of the plan's [throttle] timezone; exit code 6
        #[arg(long, value_name = "HH:MM", value_parser = time_of_day)]
        until: Option<NaiveTime>,
    },
    /// Hold a job at the next chunk, until it is resumed; from any machine
    #[command(after_help = "Example:\n  pgstrata pause events")]
    Pause {
        /// The job's name
        job: String,
    },
    /// Let a paused job go on
    #[command(after_help = "Example:\n  pgstrata resume events")]
    Resume {
        /// The job's name
        job: String,
    },
    /// Change a job's pace while it runs; kept until it ends
    #[command(
        after_help = "Example:\n  pgstrata set events workers=2 rows_per_second=20000 max_replica_lag=5s"
    )]
    Set {
        /// The job's name
        job: String,
        /// workers, target_batch_ms, or any key of the plan's [throttle]; off: no limit
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Say where a job is, or all jobs
    #[command(after_help = "Example:\n  pgstrata status events --watch")]
    Status {
        /// The job's name; all jobs where left out
        job: Option<String>,
        /// Stay, and look again every second
        #[arg(long)]
        watch: bool,
    },
    /// Compare both tables, row by row; look at a backfill's rows again
    #[command(after_help = "Example:\n  pgstrata verify events --json")]
    Verify {
        /// The job's name
        job: String,
    },
    /// Give the partitioned table the name that applications use
    #[command(after_help = "Example:\n  pgstrata swap events")]
    Swap {
        /// The job's name
        job: String,
    },
    /// Give the old table its name back, with everything written since
    #[command(after_help = "Example:\n  pgstrata rollback events")]
    Rollback {
        /// The job's name
        job: String,
    },
    /// Sync the table that is not in use, and exit; for cron
    #[command(after_help = "Example:\n  */5 * * * *  pgstrata sync events --quiet")]
    Sync {
        /// The job's name
        job: String,
    },
    /// End the rollback window: drop the old table
    #[command(after_help = "Example:\n  pgstrata finalize events")]
    Finalize {
        /// The job's name
        job: String,
        /// Even before the plan's keep_old has passed
        #[arg(long)]
        now: bool,
    },
    /// Keep a partitioned table going: partitions ahead, retention, statistics; for cron
    #[command(
        after_help = "Example:\n  17 3 * * *  pgstrata maintain events --quiet\n  pgstrata maintain --table public.clicks"
    )]
    Maintain {
        /// The job's name; the tables of all jobs where left out
        job: Option<String>,
        /// Any partitioned table, also one that pgstrata did not make: interval and names are read from its partitions
        #[arg(long, value_name = "TABLE", conflicts_with = "job")]
        table: Option<String>,
    },
    /// Before the swap: remove everything that the job made; of a backfill, what it has not finished
    #[command(after_help = "Example:\n  pgstrata abort events")]
    Abort {
        /// The job's name
        job: String,
    },
    /// Explain what a finding of check means, why it matters and what to do; without a code, list all codes
    #[command(after_help = "Example:\n  pgstrata explain key_widened")]
    Explain {
        /// The code in brackets that check prints: key_widened
        code: Option<String>,
    },
    /// See the whole job on a private server with writers on it, in a minute
    #[command(after_help = "Example:\n  pgstrata demo")]
    Demo {
        /// Leave the server up, and say how to connect
        #[arg(long)]
        keep: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The help as a terminal of 100 columns shows it, whatever the environment.
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

    /// `docs/commands.md` and the README list every command, and the former every exit code as the help does.
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
    fn options_may_stand_on_either_side_of_the_command_and_a_password_is_not_shown() {
        for line in [["pgstrata", "--json", "verify", "j"], ["pgstrata", "verify", "j", "--json"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(cli.everywhere.json);
            assert!(matches!(cli.command, Command::Verify { job } if job == "j"));
        }
        let cli = Cli::try_parse_from(["pgstrata", "status", "--dsn", "postgres://u:s3cret@h/d"]).unwrap();
        assert!(!format!("{cli:?}").contains("s3cret"));
        assert_eq!(cli.everywhere.dsn.unwrap().as_str(), "postgres://u:s3cret@h/d");
        assert!(Cli::try_parse_from(["pgstrata", "plan", "t"]).is_err());
        assert!(Cli::try_parse_from(["pgstrata"]).is_err());
        assert!(Cli::try_parse_from(["pgstrata", "run", "p", "--for", "2h"]).is_ok());
        assert!(Cli::try_parse_from(["pgstrata", "run", "p", "--until", "05:00"]).is_ok());
        for wrong in [["--for", "0s"], ["--for", "soon"], ["--until", "5 o'clock"], ["--until", "24:00"]] {
            assert!(Cli::try_parse_from([&["pgstrata", "run", "p"][..], &wrong].concat()).is_err());
        }
    }
}
