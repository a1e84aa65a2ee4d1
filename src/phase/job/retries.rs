//! One way to report retries: what is retried, which attempt it is, for how long, until when, and the last error.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::event::Events;
use crate::model::number;

/// How often the same error is reported,
const AGAIN: Duration = Duration::from_secs(60);
/// and how often a different one.
const ANOTHER: Duration = Duration::from_secs(10);
/// Shorter retries are not reported if they are usual.
const USUAL: Duration = Duration::from_secs(5);

/// Attempts at one step.
#[derive(Debug)]
pub struct Retries<'a> {
    events: &'a Events,
    what: &'a str,
    until: String,
    usual: bool,
    begun: Instant,
    failed: u32,
    /// The last report, and its time.
    said: Option<(String, Instant)>,
}

impl<'a> Retries<'a> {
    /// Attempts at `what`, an infinitive; `until` states when they end: `60 attempts`, `5m`.
    pub fn of(events: &'a Events, what: &'a str, until: impl Into<String>) -> Self {
        Self { events, what, until: until.into(), usual: false, begun: Instant::now(), failed: 0, said: None }
    }

    /// The same if a few failures are usual: they are reported only if they continue.
    pub fn usual(events: &'a Events, what: &'a str, until: impl Into<String>) -> Self {
        Self { usual: true, ..Self::of(events, what, until) }
    }

    /// Another attempt has failed. The first failure is reported; later ones every ten seconds if the error is
    /// different, otherwise every minute.
    pub fn failed(&mut self, error: &Error) {
        self.failed += 1;
        tracing::debug!(what = self.what, failed = self.failed, error = %error, "again");
        let brief = error.brief();
        let time = self.begun.elapsed();
        let pause = |was: &String| if *was == brief { AGAIN } else { ANOTHER };
        let known = self.said.as_ref().is_some_and(|(was, at)| at.elapsed() < pause(was));
        if known || self.usual && time < USUAL {
            return;
        }
        self.events.warn(self.line(time, &brief));
        self.said = Some((brief, Instant::now()));
    }

    /// The number of failed attempts, and their duration.
    pub fn spent(&self) -> String {
        format!(
            "{} ({})",
            number::counted(self.failed.into(), "attempt"),
            number::duration(self.begun.elapsed())
        )
    }

    fn line(&self, time: Duration, error: &str) -> String {
        let (what, failed, until) = (self.what, self.failed, &self.until);
        let time = number::duration(time);
        format!("{what}: attempt {failed} failed after {time}, retrying for up to {until}: {error}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn the_first_failure_is_reported_and_not_each_of_many() {
        let (events, mut heard) = Events::channel();
        let mut retries = Retries::of(&events, "swap", "30 attempts");
        for message in ["a", "a", "b"] {
            retries.failed(&Error::failed(message).code("55P03").cause("c"));
        }
        let mut said = Vec::new();
        while let Ok(Event::Warning { text }) = heard.try_recv() {
            said.push(text);
        }
        assert_eq!(said.len(), 1, "{said:?}");
        let time = Duration::from_secs(75);
        let line = retries.line(time, &Error::failed("b").code("55P03").cause("c").brief());
        assert_eq!(
            line,
            "swap: attempt 3 failed after 1m 15s, retrying for up to 30 attempts: b (SQLSTATE 55P03): c"
        );
        let mut usual = Retries::usual(&events, "copy a chunk", "60 attempts");
        usual.failed(&Error::failed("a"));
        assert!(heard.try_recv().is_err());
        assert!(usual.spent().starts_with("1 attempt ("));
    }
}
