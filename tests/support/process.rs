//! The binary as a process: its output and exit status, with a time limit, and how to freeze and continue it.

use std::os::unix::process::ExitStatusExt;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;

use super::wait::{LIMIT, until};

/// The signal with which failpoints kill; no process can catch it.
pub const SIGKILL: i32 = 9;

/// The output and exit status of a process.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; none if a signal killed it.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Asserts that the process succeeded.
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Asserts the exit code.
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that a failpoint killed the process.
    pub fn killed(self, at: &str) -> Self {
        assert_eq!(
            self.signal,
            Some(SIGKILL),
            "the process did not reach {at}\nstdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// The events with a code that the command printed with `--json`.
    pub fn events(&self, code: &str) -> Vec<Value> {
        let event = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        self.stdout.lines().map(event).filter(|event: &Value| event["code"] == code).collect()
    }

    /// The event with a code that occurs once.
    pub fn event(&self, code: &str) -> Value {
        let mut events = self.events(code);
        assert_eq!(events.len(), 1, "{code}: {self:?}");
        events.remove(0)
    }

    /// The error that the command printed with `--json`.
    pub fn error(&self) -> Value {
        let line = self.stderr.lines().last().unwrap_or_default();
        let mut error: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        error["error"].take()
    }
}

/// The exit code and the error message of a command that failed, with `#` for every number.
pub fn refusal(ran: &Ran) -> String {
    let code = ran.code.map_or_else(|| "signal".to_owned(), |code| code.to_string());
    let error = ran.stderr.find("error:").map_or("no error is reported", |at| &ran.stderr[at..]);
    format!("exit {code}\n{}", without_numbers(error))
}

fn without_numbers(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' if plain.ends_with('#') => {}
            '0'..='9' => plain.push('#'),
            c => plain.push(c),
        }
    }
    plain
}

/// Waits until a process exits; panics with its output on a timeout.
pub async fn ended(mut child: Child) -> Ran {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let end = async { tokio::join!(read(out, &mut stdout), read(err, &mut stderr), child.wait()).2 };
    let status = tokio::time::timeout(LIMIT, end).await;
    let (stdout, stderr) = (text(&stdout), text(&stderr));
    let Ok(status) = status else {
        panic!("the process did not exit within {} s\nstdout:\n{stdout}\nstderr:\n{stderr}", LIMIT.as_secs());
    };
    let status = status.unwrap();
    Ran { code: status.code(), signal: status.signal(), stdout, stderr }
}

async fn read(from: Option<impl AsyncRead + Unpin>, output: &mut Vec<u8>) {
    if let Some(mut from) = from {
        from.read_to_end(output).await.unwrap();
    }
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// Waits until a process is stopped at its failpoint.
pub async fn frozen(mut child: Child) -> Child {
    let pid = pid(&child);
    let mut exited = false;
    until("the process reaches its failpoint", async || {
        exited = child.try_wait().unwrap().is_some();
        exited || is_stopped(pid)
    })
    .await;
    if exited {
        panic!("the process did not reach its failpoint: {:?}", ended(child).await);
    }
    child
}

/// Whether a child process is stopped. Does not reap it.
fn is_stopped(pid: Pid) -> bool {
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid), options).is_ok_and(|status| status.is_some_and(|status| status.stopped()))
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().unwrap().cast_signed()).unwrap()
}

/// Sends a signal to a process.
pub fn send(child: &Child, signal: Signal) {
    kill_process(pid(child), signal).unwrap();
}
