//! How long partitions are kept, and what `maintain` does with expired ones.

use crate::model::partition::Every;

/// What happens to an expired partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionAction {
    /// It is reported, and kept.
    Report,
    /// It is detached, and becomes a separate table.
    Detach,
    /// It is dropped, with its rows.
    Drop,
}

impl RetentionAction {
    pub(super) const ALL: [Self; 3] = [Self::Report, Self::Detach, Self::Drop];

    /// The name in a plan.
    pub fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Detach => "detach",
            Self::Drop => "drop",
        }
    }
}

/// The section `[retention]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long values are kept, counted back from now or from the largest number.
    pub keep: Every,
    /// What happens to a partition that contains only older values.
    pub how: RetentionAction,
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::plan::Plan;

    fn plan(every: &str, section: &str) -> Result<Plan, String> {
        let text = format!("table = 't'\n[partition]\nby = 'at'\nevery = {every}\n[retention]\n{section}");
        Plan::parse(&text, "p.toml").map_err(|e| e.to_string())
    }

    #[test]
    fn retention_is_read_with_its_defaults() {
        let retention = |every, section| plan(every, section).unwrap().partitioning().unwrap().retention;
        assert_eq!(retention("'month'", ""), None);
        let report = Retention { keep: Every::Years(2), how: RetentionAction::Report };
        assert_eq!(retention("'month'", "keep = '2 years'"), Some(report));
        let dropped = Retention { keep: Every::Integers(1_000_000), how: RetentionAction::Drop };
        assert_eq!(retention("1000", "keep = 1_000_000\nhow = 'drop'"), Some(dropped));
    }

    #[test]
    fn problems_are_reported() {
        let error = |every, section| plan(every, section).unwrap_err();
        assert_snapshot!(error("'month'", "how = 'drop'"), @r#"
        p.toml: retention.keep is missing
        hint: write keep = "24 months" under [retention]
        "#);
        assert_snapshot!(error("'month'", "keep = 100\nhow = 'archive'"), @r#"
        p.toml has 2 errors
          p.toml:6:8: retention.keep: `100` does not match partitions of `1 month`
            hint: write both as intervals of time, or both as numbers
          p.toml:7:7: retention.how: "archive" is not "report" or "detach" or "drop"
        "#);
        assert_snapshot!(error("100", "keep = '2 fortnights'"), @r#"p.toml:6:8: retention.keep: `2 fortnights` is not an interval: write a number of hours, days, weeks, months, quarters or years ("1 month"), or a plain number for an integer column"#);
        assert_snapshot!(error("100", "keep = '2 years'\nhoww = 'drop'"), @r#"
        p.toml has 2 errors
          p.toml:6:8: retention.keep: `2 years` does not match partitions of `100`
            hint: write both as intervals of time, or both as numbers
          p.toml:7:1: unknown key `howw` under [retention]
            hint: did you mean `how`?
        "#);
    }
}
