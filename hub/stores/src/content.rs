//! What can a store not hold? Scripts, which only an agent runs; paths that Git refuses; and, where
//! all is joined to one file, what is not text.

use muster_core::{FileSet, directory::forbidden};
use serde_json::Value;

use crate::layout::Mode;

/// The group of documents that only an agent understands.
const AGENT_GROUP: &str = "fleet.muster.dev/";
/// Their kind.
const SCRIPT: &str = "Script";

/// Why files are not written to a store, whatever the store says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// One CamelCase word.
    pub reason: &'static str,
    /// The file, the cause and the cure.
    pub message: String,
}

/// Why these files cannot be written in this layout.
pub fn unfit(files: &FileSet, mode: &Mode) -> Option<Unfit> {
    files.iter().find_map(|(path, bytes)| {
        let unfit = |reason, cause: String| Some(Unfit { reason, message: format!("{path:?} {cause}") });
        if let Some(cause) = forbidden(path) {
            return unfit("InvalidPath", format!("cannot be written: {cause}: rename it"));
        }
        if is_script(path, bytes) {
            let cause = "is a Script, which Flux and Argo CD do not know: let it go to a destination \
                         with an agent that enables shell (a directory of its own in \
                         destination-selectors.yaml)";
            return unfit("NeedsAgent", cause.to_owned());
        }
        if matches!(mode, Mode::Aggregated(_)) && std::str::from_utf8(bytes).is_err() {
            let cause = "is not text and cannot be part of one YAML file: leave it out, or give the \
                         destination filepath.mode nestedByMetadata";
            return unfit("NotText", cause.to_owned());
        }
        None
    })
}

/// Whether a file holds a Script among its documents.
fn is_script(path: &str, bytes: &[u8]) -> bool {
    let named = [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end));
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    // Most files are told apart without parsing.
    if !named || !text.contains(AGENT_GROUP) || !text.contains(SCRIPT) {
        return false;
    }
    let is_one = |value: &Value| {
        let of = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        of("kind") == SCRIPT && of("apiVersion").starts_with(AGENT_GROUP)
    };
    match serde_saphyr::from_multiple::<Value>(text) {
        Ok(documents) => documents.iter().any(is_one),
        // What cannot be parsed is no document of ours; its reader will say so.
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unfit_of(path: &str, bytes: &[u8], mode: &Mode) -> Option<&'static str> {
        let mut files = FileSet::new();
        files.insert("a.yaml", b"kind: ConfigMap\n".to_vec()).unwrap();
        files.insert(path, bytes.to_vec()).unwrap();
        let unfit = unfit(&files, mode)?;
        assert!(unfit.message.contains(path), "{unfit:?}");
        Some(unfit.reason)
    }

    #[test]
    fn scripts_need_an_agent_wherever_they_are_in_a_file() {
        let script = "kind: ConfigMap\n---\napiVersion: fleet.muster.dev/v1alpha1\nkind: Script\n";
        assert_eq!(unfit_of("s.yaml", script.as_bytes(), &Mode::Nested), Some("NeedsAgent"));
        assert_eq!(unfit_of("s.txt", script.as_bytes(), &Mode::Nested), None);
        let talk = "data: {text: 'fleet.muster.dev/v1alpha1 kind: Script'}\n";
        assert_eq!(unfit_of("talk.yaml", talk.as_bytes(), &Mode::Nested), None);
    }

    #[test]
    fn binary_files_fit_everywhere_but_in_one_yaml_file() {
        let binary = [0xff, 0xfe, 0x00];
        assert_eq!(unfit_of("logo.png", &binary, &Mode::Nested), None);
        assert_eq!(unfit_of("logo.png", &binary, &Mode::Flat), None);
        let one = Mode::Aggregated("all.yaml".into());
        assert_eq!(unfit_of("logo.png", &binary, &one), Some("NotText"));
    }

    #[test]
    fn a_git_directory_cannot_be_written() {
        assert_eq!(unfit_of("x/.git/config", b"", &Mode::Flat), Some("InvalidPath"));
    }
}
