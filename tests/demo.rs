//! `pgstrata demo`: it completes, and it leaves nothing behind even if it is interrupted.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::process::{Ran, ended, send};
use crate::support::wait::{until, within};

/// Environment variables that point to another server. The demo ignores them, because it uses a private server.
const ELSEWHERE: [(&str, &str); 4] = [
    ("DATABASE_URL", "postgres://nobody@nowhere.invalid/nothing"),
    ("PGHOST", "nowhere.invalid"),
    ("PGSERVICE", "nothing"),
    ("PGSSLMODE", "verify-full"),
];

fn demo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgstrata"));
    command.arg("demo").args(args).envs(ELSEWHERE).env_remove("NO_COLOR");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// All processes: the process ID of the parent, and the command line.
fn processes() -> Vec<(u32, String)> {
    let ps = std::process::Command::new("ps").args(["-A", "-ww", "-o", "ppid=,args="]).output().unwrap();
    let lines = String::from_utf8_lossy(&ps.stdout).into_owned();
    let split = |line: &str| {
        let (parent, args) = line.trim().split_once(' ')?;
        Some((parent.parse().ok()?, args.to_owned()))
    };
    lines.lines().filter_map(split).collect()
}

fn nothing_is_left(dir: &Path) {
    assert!(!dir.exists(), "{} is left", dir.display());
    let name = dir.display().to_string();
    let left: Vec<_> = processes().into_iter().filter(|(_, args)| args.contains(&name)).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The first word after `before` in the text.
fn word_after<'t>(text: &'t str, before: &str) -> &'t str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in:\n{text}")).1;
    rest.split_whitespace().next().unwrap()
}

#[tokio::test]
async fn the_demo_completes() {
    let Ran { stdout, stderr: story, .. } = ended(demo(&[]).spawn().unwrap()).await.ok();
    let mut rest = &*story;
    for step in [
        "fill: complete (",
        "Seq Scan on petri_observations (",
        "every    = \"1 month\"",
        "copy: complete (",
        "verify: complete (",
        "swap: complete (",
        "lock held",
        "Scan on petri_observations_y20",
        "witness: complete (",
        "rollback: complete (",
        "witness: complete (",
        "swap: complete (",
        "finalize: complete (",
        "witness: complete (",
    ] {
        rest = rest
            .split_once(step)
            .unwrap_or_else(|| panic!("no {step:?} after the previous step:\n{story}"))
            .1;
    }
    assert_eq!(word_after(&stdout, "of which "), "0", "{stdout}");
    assert!(stdout.contains("of which 0 failed") && stdout.contains("of which 0 differ"), "{stdout}");
    assert!(!stdout.contains("still up"), "{stdout}");
    nothing_is_left(Path::new(word_after(&story, "server directory ")));
}

#[tokio::test]
async fn a_kept_server_can_be_used_and_is_stopped_by_the_printed_command() {
    let Ran { stdout, stderr, .. } = ended(demo(&["--keep", "--json"]).spawn().unwrap()).await.ok();
    assert_eq!(stderr, "", "{stdout}");
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["event"] == "phase_done" && line["phase"] == "swap"), "{stdout}");
    let figures = lines.last().unwrap();
    assert_eq!((&figures["failures"], &figures["rows_differing"]), (&0.into(), &0.into()), "{figures}");
    assert!(figures["transactions"].as_u64().unwrap() > 0, "{figures}");
    let shell = async |command: String| Command::new("sh").args(["-c", &command]).output().await.unwrap();
    let (connect, stop) = (figures["kept"]["connect"].as_str(), figures["kept"]["stop"].as_str());
    let connect = connect.unwrap();
    let count = shell(format!("{connect} -Atc 'select count(*) from petri_observations'")).await;
    assert_eq!(String::from_utf8_lossy(&count.stdout).trim(), figures["rows"].to_string(), "{count:?}");
    assert!(shell(stop.unwrap().to_owned()).await.status.success());
    assert!(!Path::new(word_after(connect, "-h ")).exists());
}

/// The directory of the demo's server, from the command line of its keeper process.
async fn dir_of(child: &Child) -> PathBuf {
    let parent = child.id().unwrap();
    let mut dir = None;
    until("the server of the demo starts", async || {
        let mut keepers = processes().into_iter().filter(|(ppid, _)| *ppid == parent);
        let is_dir = |word: &&str| word.starts_with("/tmp/pgstrata-");
        dir = keepers.find_map(|(_, args)| args.split_whitespace().find(is_dir).map(PathBuf::from));
        dir.is_some()
    })
    .await;
    dir.unwrap()
}

/// Sends SIGINT, as Ctrl-C does, and waits until the process exits.
async fn interrupted(child: Child, dir: &Path) {
    send(&child, Signal::INT);
    let stderr = ended(child).await.exits(6).stderr;
    assert!(
        stderr.contains("error: the demo was stopped; its server and its directory were removed\n"),
        "{stderr}"
    );
    nothing_is_left(dir);
}

#[tokio::test]
async fn ctrl_c_while_the_server_starts_leaves_nothing() {
    let child = demo(&[]).spawn().unwrap();
    let dir = dir_of(&child).await;
    interrupted(child, &dir).await;
}

#[tokio::test]
async fn ctrl_c_in_the_middle_of_the_job_leaves_nothing() {
    let mut child = demo(&[]).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    within("the demo reports the copy", async {
        while !line.starts_with("copy: ") {
            line.clear();
            assert!(stderr.read_line(&mut line).await.unwrap() > 0, "the demo ended early");
        }
    })
    .await;
    let dir = dir_of(&child).await;
    child.stderr = Some(stderr.into_inner());
    interrupted(child, &dir).await;
}
