//! Explanations of findings as text.

use super::paint::Paint;
use crate::model::explanation::Explanation;

/// One code: its meaning, the reason, and what to do.
pub(super) fn entry(explanation: &Explanation, paint: Paint) -> String {
    format!(
        "{} ({})\n{}\n\n{}: {}\n\n{}: {}",
        paint.strong(explanation.code),
        explanation.level,
        explanation.meaning,
        paint.strong("Why"),
        explanation.reason,
        paint.strong("What to do"),
        explanation.action
    )
}

/// All codes, one per line, grouped by topic.
pub(super) fn list(all: &[Explanation], paint: Paint) -> String {
    let width = all.iter().map(|one| one.code.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    let mut topic = "";
    for one in all {
        if one.topic != topic {
            topic = one.topic;
            lines.push(format!("{}{}", if lines.is_empty() { "" } else { "\n" }, paint.strong(topic)));
        }
        lines.push(format!("  {:width$}  {}", one.code, one.meaning));
    }
    lines.push("\n`pgstrata explain CODE` explains a finding.".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::explanation;

    #[test]
    fn an_entry_has_meaning_reason_and_action() {
        let one = explanation::of("key_widened").unwrap();
        insta::assert_snapshot!(entry(one, Paint(false)), @r"
        key_widened (warning)
        The key gets the partition column appended.

        Why: PostgreSQL enforces uniqueness on a partitioned table only with the partition column in it. After the swap nothing keeps the old key's columns unique by themselves, and `ON CONFLICT` on them fails.

        What to do: Look for `ON CONFLICT` on the old key in the applications, and make sure that its values come from a sequence or are random uuids.
        ");
    }

    #[test]
    fn the_list_has_a_line_for_each_code() {
        let text = list(explanation::all(), Paint(false));
        for one in explanation::all() {
            assert_eq!(
                text.lines().filter(|line| line.trim_start().starts_with(&format!("{} ", one.code))).count(),
                1
            );
        }
    }
}
