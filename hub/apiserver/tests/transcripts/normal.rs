//! What of an output may differ from run to run, taken out of it.

use std::sync::LazyLock;

use regex::Regex;

/// Patterns, and what stands in their place; the order matters.
static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        // klog's head: date, time, process, place in kubectl's source.
        (r"(?m)^[EWI]\d{4} [\d:.]+ +\d+ [a-z_]+\.go:\d+\] ", "<log> "),
        (r"https?://(127\.0\.0\.1|localhost):\d+", "<server>"),
        (r"127\.0\.0\.1:\d+", "<address>"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>"),
        (r"eyJ[\w-]+\.[\w-]+\.[\w-]+", "<token>"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| [+-]\d{4} UTC| [+-]\d{4})?", "<time>"),
        (r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", "<time>"),
        (r#"((?i:resource ?version)"?: +"?)\d+"#, "${1}<revision>"),
        (r#"(the requested version of the object is|resourceVersion=)\d+"#, "${1}<revision>"),
        (r"kubectl/v1\.[0-9.]+", "kubectl/<version>"),
        (r"X509SHA256=[0-9a-f]{64}", "X509SHA256=<hash>"),
        // Go prints values as its types, with addresses.
        (
            r"Invalid value: (\[\])?(map\[string\]interface \{\}|interface \{\}|[a-z]+\.\w+)\{.*\}: ",
            "Invalid value: <object>: ",
        ),
        (r#"patch: Invalid value: ".*": strict"#, "patch: Invalid value: <object>: strict"),
        // Names that the server completes; sessions begin them so.
        (r"\bgen-[a-z0-9]{5}\b", "gen-<made>"),
        // Files that kubectl makes for itself.
        (r"/tmp/[\w./-]*(LIVE|MERGED)-\d+", "<${1}>"),
        (r"/tmp/[\w.-]*kubectl-edit-[\w.-]+", "<edited>"),
        // Ages of what sessions date years back, wherever they stand; then other ages in tables and
        // descriptions, where they stand alone.
        (r"\b\d+y(\d+d)?\b", "<age>"),
        (r"(?m)( {2,}|\t)(\d+[smhd])+( {2,}|\t|$| ago| \(x)", "${1}<age>${3}"),
        (r"(?m)\((x\d+ )over (\d+[smhd])+\)", "(${1}over <age>)"),
        (r"(?m)\b(\d+[smhd])+ ago", "<age> ago"),
        // Widths of columns follow from what was taken out.
        (r"(?m)(\S) {2,}", "$1   "),
        (r"(?m)[ \t]+$", ""),
    ]
    .map(|(pattern, instead)| (Regex::new(pattern).unwrap(), instead))
    .into()
});

pub(crate) fn normalised(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, instead) in RULES.iter() {
        text = pattern.replace_all(&text, *instead).into_owned();
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
