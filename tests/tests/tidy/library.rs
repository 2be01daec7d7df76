//! Rules of the library's source.

use crate::repository::{LIBRARY, Repository, code, has_word, numbered, without_tests};

/// The table does no I/O and knows no clock, no tokio and no rustls.
pub(crate) fn the_table_is_pure(repository: &Repository) -> Vec<String> {
    let path = format!("{LIBRARY}tls/close_state.rs");
    let mut complaints = Vec::new();
    for (number, line) in numbered(repository.text(&path)) {
        let line = code(line).trim();
        let imports = line.starts_with("use ") && !line.starts_with("use crate::tls::report::");
        let names = ["std", "core", "tokio", "tokio_rustls", "rustls", "Instant"];
        if imports || names.iter().any(|name| has_word(line, name)) {
            complaints.push(format!("{path}:{number}: more than `crate::tls::report`: {line}"));
        }
    }
    complaints
}

/// The files of `tls/` that name rustls and tokio-rustls, so that a new version of either is a small port. The files of `server/` and
/// `client/` name them for configurations and certificates.
const FILES_THAT_NAME_RUSTLS: [&str; 2] = ["session.rs", "tls_error.rs"];

/// Below HTTP, only these files name rustls.
pub(crate) fn rustls_is_touched_in_few_files(repository: &Repository) -> Vec<String> {
    let folder = format!("{LIBRARY}tls/");
    let mut complaints = Vec::new();
    for (path, text) in repository.files(&folder, ".rs") {
        if path.strip_prefix(&folder).is_some_and(|file| FILES_THAT_NAME_RUSTLS.contains(&file)) {
            continue;
        }
        let text = without_tests(text);
        for line in text.lines().filter(|line| ["rustls", "tokio_rustls"].iter().any(|name| has_word(line, name))) {
            complaints.push(format!("{path}: belongs in session.rs: {}", line.trim()));
        }
    }
    complaints
}

const HEADINGS: [&str; 4] = ["Errors", "Panics", "Cancel safety", "Examples"];

/// The headings of one documentation comment that are not in a code block.
fn headings(documentation: &[&str]) -> Vec<String> {
    let mut in_code = false;
    let mut headings = Vec::new();
    for line in documentation {
        in_code ^= line.trim_start().starts_with("```");
        if let (false, Some(heading)) = (in_code, line.strip_prefix("# ")) {
            headings.push(heading.to_owned());
        }
    }
    headings
}

/// Headings have one spelling and one order, and whatever can be cancelled has a section on that.
pub(crate) fn documentation_has_its_headings(repository: &Repository) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in repository.files(LIBRARY, ".rs") {
        let mut documentation = Vec::new();
        let mut lines = numbered(text).peekable();
        while let Some((number, line)) = lines.next() {
            let line = line.trim_start();
            if let Some(doc) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) {
                documentation.push(doc.strip_prefix(' ').unwrap_or(doc));
                continue;
            }
            if line.starts_with("#[") {
                continue;
            }
            let found = headings(&documentation);
            documentation.clear();

            let rank = |heading: &String| HEADINGS.iter().position(|known| known == heading);
            if !found.is_sorted_by_key(|heading| rank(heading).map_or(0, |rank| rank + 1)) {
                complaints.push(format!("{path}:{number}: headings before this line are out of order: {found:?}"));
            }
            for heading in found.iter().filter(|heading| rank(heading).is_none()) {
                let lower = heading.to_lowercase();
                if ["error", "panic", "cancel", "example"].iter().any(|word| lower.contains(word)) {
                    complaints.push(format!("{path}:{number}: `{heading}` is none of {HEADINGS:?}"));
                }
            }

            if line.starts_with("pub async fn ") || line.starts_with("pub fn ") {
                let mut signature = line.to_owned();
                while !signature.contains(['{', ';']) {
                    signature += lines.next().map_or(";", |(_, line)| line);
                }
                let cancellable = signature.starts_with("pub async") || signature.contains("-> AsyncShutdown");
                if cancellable && !found.iter().any(|heading| heading == "Cancel safety") {
                    complaints.push(format!("{path}:{number}: no `# Cancel safety`: {line}"));
                }
            }
        }
    }
    complaints
}

/// The guide lists every event.
pub(crate) fn events_are_listed(repository: &Repository) -> Vec<String> {
    let path = "crates/tls-shutdown/guide/src/observability.md";
    let mut complaints = Vec::new();
    for (file, text) in repository.files(LIBRARY, ".rs") {
        let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let macros = ["error!(", "warn!(", "info!(", "debug!(", "debug_span!("];
        for (start, path_of_macro) in code.match_indices("tracing::") {
            let event = &code[start + path_of_macro.len()..];
            if !macros.iter().any(|name| event.starts_with(name)) {
                continue;
            }
            let event = event.split_once(';').map_or(event, |(event, _)| event);
            let name = event.split('"').nth(1).unwrap_or_default();
            if !repository.text(path).contains(&format!("`{name}`")) {
                complaints.push(format!("{path}: does not list {file}'s `{name}`"));
            }
        }
    }
    complaints
}
