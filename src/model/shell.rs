//! Quotes words of a command line for a POSIX shell.

/// The name of a job as one word of a command line: quoted if a shell would interpret it, and after `--` if the command
/// would mistake it for an option.
pub fn word(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    let quoted = if !name.is_empty() && name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    };
    if name.starts_with('-') { format!("-- {quoted}") } else { quoted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_name_as_one_word() {
        for name in
            ["job", "Ünï/ t'x", "a b", "$(x)", "`x`", "it's", "\"q\"", "~", "#", "a;b", "*", "\\", "!x"]
        {
            let line = format!("printf %s {}", word(name));
            let said = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), name, "{line}");
        }
        assert_eq!(word("orders_2024-v1.2"), "orders_2024-v1.2");
        assert_eq!(word("-x"), "-- -x");
    }
}
