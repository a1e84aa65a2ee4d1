//! One way to report retries: what is retried, which attempt it is, for how long, until when, and the last error.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::event::{Events, RunWarning};
use crate::model::number;
use crate::model::retry_limit::RetryLimit;

/// How often the same error is reported,
const AGAIN: Duration = Duration::from_secs(60);
/// and how often a different one.
const ANOTHER: Duration = Duration::from_secs(10);
/// Shorter retries are not reported if they are usual.
const USUAL: Duration = Duration::from_secs(5);

/// What is attempted.
#[derive(Debug, Clone, Copy)]
pub enum Retried<'a> {
    /// A step, an infinitive: `copy a chunk`.
    Step(&'a str),
    /// To drive the job of that name.
    Job(&'a str),
}

/// Attempts at one step.
#[derive(Debug)]
pub struct Retries<'a> {
    events: &'a Events,
    what: Retried<'a>,
    limit: RetryLimit,
    usual: bool,
    begun: Instant,
    failed: u32,
    /// The last report, and its time.
    said: Option<(String, Instant)>,
}

impl<'a> Retries<'a> {
    /// Attempts at `what`, which end at `limit`.
    pub fn of(events: &'a Events, what: Retried<'a>, limit: RetryLimit) -> Self {
        Self { events, what, limit, usual: false, begun: Instant::now(), failed: 0, said: None }
    }

    /// The same if a few failures are usual: they are reported only if they continue.
    pub fn usual(events: &'a Events, what: Retried<'a>, limit: RetryLimit) -> Self {
        Self { usual: true, ..Self::of(events, what, limit) }
    }

    /// Another attempt has failed. The first failure is reported; later ones every ten seconds if the error is
    /// different, otherwise every minute.
    pub fn failed(&mut self, error: &Error) {
        self.failed += 1;
        tracing::debug!(what = ?self.what, failed = self.failed, error = %error, "again");
        let brief = error.brief();
        let time = self.begun.elapsed();
        let pause = |was: &String| if *was == brief { AGAIN } else { ANOTHER };
        let known = self.said.as_ref().is_some_and(|(was, at)| at.elapsed() < pause(was));
        if known || self.usual && time < USUAL {
            return;
        }
        self.events.warn(self.warning(time, &brief));
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

    fn warning(&self, time: Duration, error: &str) -> RunWarning {
        let (attempt, limit, error) = (self.failed, self.limit, error.to_owned());
        let elapsed_ms = number::whole_ms(time);
        match self.what {
            Retried::Step(step) => {
                RunWarning::Retrying { step: step.to_owned(), attempt, elapsed_ms, limit, error }
            }
            Retried::Job(job) => {
                RunWarning::JobInterrupted { job: job.to_owned(), attempt, elapsed_ms, limit, error }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn the_first_failure_is_reported_and_not_each_of_many() {
        let (events, mut heard) = Events::channel();
        let limit = RetryLimit::attempts(30);
        let mut retries = Retries::of(&events, Retried::Step("swap"), limit);
        for message in ["a", "a", "b"] {
            retries.failed(&Error::failed(message).code("55P03").cause("c"));
        }
        let mut said = Vec::new();
        while let Ok(Event::Warning(warning)) = heard.try_recv() {
            said.push(warning);
        }
        assert_eq!(said.len(), 1, "{said:?}");
        let error = Error::failed("b").code("55P03").cause("c").brief();
        let (step, text) = ("swap".to_owned(), "b (SQLSTATE 55P03): c".to_owned());
        assert_eq!(
            retries.warning(Duration::from_secs(75), &error),
            RunWarning::Retrying { step, attempt: 3, elapsed_ms: 75_000, limit, error: text }
        );
        let mut usual = Retries::usual(&events, Retried::Step("copy a chunk"), RetryLimit::attempts(60));
        usual.failed(&Error::failed("a"));
        assert!(heard.try_recv().is_err());
        assert!(usual.spent().starts_with("1 attempt ("));
    }
}
