//! The password file, as in libpq ("The Password File"): one `host:port:database:user:password` per line, `*` matches
//! anything, `\` escapes a `:` or `\`. A file that other users may read is ignored, with a warning.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

/// The login whose password is wanted.
pub(super) struct Login<'a> {
    /// The host name; `localhost` for the server's own socket directory.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The database.
    pub dbname: &'a str,
    /// The user.
    pub user: &'a str,
}

/// The password in `file`; none if the file does not exist or must not be used, or if no line matches.
pub(super) fn password(file: &Path, login: &Login<'_>) -> Option<String> {
    let about = fs::metadata(file).ok()?;
    if !about.is_file() {
        tracing::warn!("password file {} is not a regular file, so it is ignored", file.display());
        return None;
    }
    if about.permissions().mode() & 0o077 != 0 {
        let file = file.display();
        tracing::warn!(
            "password file {file} has group or world access, so it is ignored; run chmod 600 \
            {file}"
        );
        return None;
    }
    match fs::read_to_string(file) {
        Ok(text) => text.lines().find_map(|line| of_line(line, login)),
        Err(e) => {
            tracing::warn!("password file {} could not be read: {e}", file.display());
            None
        }
    }
}

/// The password of the line, if the line matches `login`.
fn of_line(line: &str, login: &Login<'_>) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    for wanted in [login.host, &login.port.to_string(), login.dbname, login.user] {
        let (field, after) = field(rest);
        // A single, unescaped asterisk matches anything; an escaped one is a name.
        if field.raw != "*" && field.value != wanted {
            return None;
        }
        rest = after?;
    }
    Some(field(rest).0.value).filter(|password| !password.is_empty())
}

struct RawField<'a> {
    raw: &'a str,
    value: String,
}

/// The field up to the next unescaped `:`, and the rest.
fn field(text: &str) -> (RawField<'_>, Option<&str>) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ':' => return (RawField { raw: &text[..at], value }, Some(&text[at + 1..])),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (RawField { raw: text, value }, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: Login<'_> = Login { host: "db.example", port: 5432, dbname: "a:b", user: "m\\e" };

    #[test]
    fn the_first_matching_line_is_used() {
        let of = |line| of_line(line, &LOGIN);
        assert_eq!(of("db.example:5432:a\\:b:m\\\\e:s3cret").as_deref(), Some("s3cret"));
        assert_eq!(of("*:*:*:*:with\\:colon\\\\").as_deref(), Some("with:colon\\"));
        assert_eq!(of("*:*:*:*:up to:here").as_deref(), Some("up to"));
        for line in
            ["", "#*:*:*:*:x", "*:*:*:*", "*:*:*:*:", "db:5432:a\\:b:m\\\\e:x", "*:5433:*:*:x", "*:*:\\*:*:x"]
        {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pgpass");
        fs::write(&file, "other:*:*:*:no\n*:*:*:*:yes\n*:*:*:*:late\n").unwrap();
        for (mode, expected) in [(0o600, Some("yes")), (0o400, Some("yes")), (0o640, None), (0o604, None)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(password(&file, &LOGIN).as_deref(), expected, "{mode:o}");
        }
        assert_eq!(password(dir.path(), &LOGIN), None);
        assert_eq!(password(&dir.path().join("none"), &LOGIN), None);
    }
}
