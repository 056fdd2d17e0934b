//! Directories of a state store: one form for each, and which of them touch each other.

use crate::content::check_path;

/// A path without slashes around it; empty for the top, which may be written `.` or `/`.
pub fn parse(path: &str) -> Result<String, String> {
    let trimmed = path.trim_matches('/');
    let trimmed = trimmed.strip_prefix("./").unwrap_or(trimmed);
    if trimmed.is_empty() || trimmed == "." {
        return Ok(String::new());
    }
    check_path(trimmed).map_err(|error| error.to_string())?;
    match forbidden(trimmed) {
        Some(cause) => Err(cause),
        None => Ok(trimmed.to_owned()),
    }
}

/// Why no store takes a path though it is a good one elsewhere.
pub fn forbidden(path: &str) -> Option<String> {
    let git = path.split('/').any(|part| part.eq_ignore_ascii_case(".git"));
    git.then(|| "no Git repository holds a file or directory named .git".to_owned())
}

/// Two paths in one; the first may be empty.
pub fn join(directory: &str, path: &str) -> String {
    match (directory, path) {
        ("", path) => path.to_owned(),
        (directory, "") => directory.to_owned(),
        (directory, path) => format!("{directory}/{path}"),
    }
}

/// Whether a path is inside a directory.
pub fn is_below(path: &str, directory: &str) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether one of two directories holds the other, or both are one.
pub fn overlap(one: &str, two: &str) -> bool {
    one == two || is_below(one, two) || is_below(two, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_have_one_form_and_are_below_the_top() {
        for (path, expected) in [("/", ""), (".", ""), ("", ""), ("a/b/", "a/b"), ("./a", "a")] {
            assert_eq!(parse(path).unwrap(), expected);
        }
        for path in ["..", "a/../../b", "a//b", "a/./b", "a\\b", "x/.git/hooks", ".GIT"] {
            assert!(parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn directories_overlap_when_one_holds_the_other() {
        for (one, two, expected) in [
            ("a", "a", true),
            ("a", "a/b", true),
            ("", "a", true),
            ("a/b", "a", true),
            ("a", "ab", false),
            ("a/b", "a/c", false),
        ] {
            assert_eq!(overlap(one, two), expected, "{one} {two}");
        }
    }
}
