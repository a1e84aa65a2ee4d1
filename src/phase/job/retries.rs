//! Reports retries in a uniform way: the step, the number of the attempt, the elapsed time, the limit, and the last
//! error.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::event::{Events, RunWarning};
use crate::model::number;
use crate::model::retry_limit::RetryLimit;

/// How often the same error is reported,
const SAME_ERROR: Duration = Duration::from_secs(60);
/// and how often a different one.
const OTHER_ERROR: Duration = Duration::from_secs(10);
/// If failures are usual, they are reported only after this time.
const USUAL: Duration = Duration::from_secs(5);

/// What is repeated.
#[derive(Debug, Clone, Copy)]
pub enum Retried<'a> {
    /// A step, as an infinitive: `copy a chunk`.
    Step(&'a str),
    /// A run of the job with that name.
    Job(&'a str),
}

/// The failed attempts at one step.
#[derive(Debug)]
pub struct Retries<'a> {
    events: &'a Events,
    what: Retried<'a>,
    limit: RetryLimit,
    usual: bool,
    begun: Instant,
    failed: u32,
    /// The last report, and its time.
    last_report: Option<(String, Instant)>,
}

impl<'a> Retries<'a> {
    /// For attempts at `what`, which end at `limit`.
    pub fn of(events: &'a Events, what: Retried<'a>, limit: RetryLimit) -> Self {
        Self { events, what, limit, usual: false, begun: Instant::now(), failed: 0, last_report: None }
    }

    /// As [`Retries::of`], for a step in which a few failures are usual: they are reported only if they continue.
    pub fn usual(events: &'a Events, what: Retried<'a>, limit: RetryLimit) -> Self {
        Self { usual: true, ..Self::of(events, what, limit) }
    }

    /// Counts another failed attempt. The first failure is reported; later ones at most every ten seconds if the error
    /// is different, otherwise at most once a minute.
    pub fn failed(&mut self, error: &Error) {
        self.failed += 1;
        tracing::debug!(what = ?self.what, failed = self.failed, error = %error, "attempt failed");
        let brief = error.brief();
        let time = self.begun.elapsed();
        let pause = |was: &String| if *was == brief { SAME_ERROR } else { OTHER_ERROR };
        let known = self.last_report.as_ref().is_some_and(|(was, at)| at.elapsed() < pause(was));
        if known || self.usual && time < USUAL {
            return;
        }
        self.events.warn(self.warning(time, &brief));
        self.last_report = Some((brief, Instant::now()));
    }

    /// The number of failed attempts and the elapsed time.
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
    fn only_the_first_of_several_failures_is_reported() {
        let (events, mut receiver) = Events::channel();
        let limit = RetryLimit::attempts(30);
        let mut retries = Retries::of(&events, Retried::Step("swap"), limit);
        for message in ["a", "a", "b"] {
            retries.failed(&Error::failed(message).code("55P03").cause("c"));
        }
        let mut warnings = Vec::new();
        while let Ok(Event::Warning(warning)) = receiver.try_recv() {
            warnings.push(warning);
        }
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let error = Error::failed("b").code("55P03").cause("c").brief();
        let (step, text) = ("swap".to_owned(), "b (SQLSTATE 55P03): c".to_owned());
        assert_eq!(
            retries.warning(Duration::from_secs(75), &error),
            RunWarning::Retrying { step, attempt: 3, elapsed_ms: 75_000, limit, error: text }
        );
        let mut usual = Retries::usual(&events, Retried::Step("copy a chunk"), RetryLimit::attempts(60));
        usual.failed(&Error::failed("a"));
        assert!(receiver.try_recv().is_err());
        assert!(usual.spent().starts_with("1 attempt ("));
    }
}
