//! The rules of the repository, as tests. Each rule is a function from the repository's text to a list of complaints, so that
//! `every_rule_can_fail` can show it a text that breaks it.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

/// The text files of the repository: those that git tracks or would track.
struct Repository(BTreeMap<String, String>);

const LIBRARY: &str = "crates/tls-shutdown/src/";

impl Repository {
    fn here() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let listed = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(&root)
            .output()
            .ok()
            .filter(|output| output.status.success() && !output.stdout.is_empty())
            .map(|output| String::from_utf8_lossy(&output.stdout).lines().map(String::from).collect());
        let paths: Vec<String> = listed.unwrap_or_else(|| {
            let mut paths = Vec::new();
            walk(&root, "", &mut paths);
            paths
        });
        let text = |path: String| fs::read_to_string(root.join(&path)).ok().map(|text| (path, text));
        let files: BTreeMap<_, _> = paths.into_iter().filter_map(text).collect();
        assert!(files.contains_key("Cargo.toml"), "{} is not the repository", root.display());
        Self(files)
    }

    fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| (String::from(*path), String::from(*text))).collect())
    }

    fn files<'a>(&'a self, folder: &'a str, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let files = self.0.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        files.filter(move |(path, _)| path.starts_with(folder) && path.ends_with(end))
    }

    fn text(&self, path: &str) -> &str {
        self.0.get(path).map_or("", String::as_str)
    }

    fn has_function(&self, name: &str) -> bool {
        let definition = format!("fn {name}(");
        self.files("", ".rs").any(|(_, text)| text.lines().any(|line| code(line).contains(&definition)))
    }
}

fn walk(root: &Path, folder: &str, paths: &mut Vec<String>) {
    let entries = fs::read_dir(root.join(folder)).expect("a folder");
    for entry in entries.map(|entry| entry.expect("an entry")) {
        let name = entry.file_name().into_string().expect("a name in UTF-8");
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        match entry.file_type().expect("a type").is_dir() {
            true if name == "target" || name == ".git" => {}
            true => walk(root, &path, paths),
            false => paths.push(path),
        }
    }
}

/// The line without its comment. Good enough for this code, which has no `//` in a string.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

/// The table does no I/O and knows no clock, no tokio and no rustls.
fn the_table_is_pure(repository: &Repository) -> Vec<String> {
    let path = format!("{LIBRARY}tls/close_state.rs");
    let mut complaints = Vec::new();
    for (number, line) in numbered(repository.text(&path)) {
        let line = code(line).trim();
        let imports = line.starts_with("use ") && !line.starts_with("use crate::tls::report::");
        let names = ["std", "core", "tokio", "tokio_rustls", "rustls", "Instant"];
        if imports || names.iter().any(|name| has_word(line, name)) {
            complaints.push(format!("{path}:{number}: more than `crate::report`: {line}"));
        }
    }
    complaints
}

/// The files that may name rustls and tokio-rustls. Two of them drive a connection, so that a new version of either is a small
/// port; the others make one from a configuration, or tell of its certificates.
const FILES_THAT_NAME_RUSTLS: [&str; 6] = [
    "tls/session.rs",
    "tls/records.rs",
    "server/listener/mod.rs",
    "server/mod.rs",
    "server/tickets.rs",
    "integrations/tonic.rs",
];

fn rustls_is_touched_in_few_files(repository: &Repository) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in repository.files(LIBRARY, ".rs") {
        if path.strip_prefix(LIBRARY).is_some_and(|file| FILES_THAT_NAME_RUSTLS.contains(&file)) {
            continue;
        }
        for (number, line) in numbered(text) {
            if ["rustls", "tokio_rustls"].iter().any(|name| has_word(code(line), name)) {
                complaints.push(format!("{path}:{number}: belongs in session.rs: {}", line.trim()));
            }
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

/// One spelling and one order of headings, and a section on cancellation wherever something can be cancelled.
fn documentation_has_its_headings(repository: &Repository) -> Vec<String> {
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
                    complaints.push(format!("{path}:{number}: a heading of {HEADINGS:?} is spelt `{heading}`"));
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

/// Nothing of one machine, no registry's host, nothing unfinished. The patterns are put together here, so as not to find themselves.
fn nothing_is_left_behind(repository: &Repository) -> Vec<String> {
    let everywhere = [
        concat!("/wo", "rk/"),
        concat!("/tm", "p/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("npmjs", ".com"),
        concat!("proxy.golang", ".org"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
    ];
    let in_rust = [
        concat!("#[", "ignore"),
        concat!("#[should", "_panic"),
        concat!("dbg", "!("),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("thread::", "sleep"),
    ];
    let mut complaints = Vec::new();
    // cargo writes the lock file.
    for (path, text) in repository.files("", "").filter(|(path, _)| !path.ends_with("Cargo.lock")) {
        for (number, line) in numbered(text) {
            let rust = in_rust.iter().filter(|_| path.ends_with(".rs"));
            for pattern in everywhere.iter().chain(rust).filter(|pattern| line.contains(**pattern)) {
                complaints.push(format!("{path}:{number}: `{pattern}`: {}", line.trim()));
            }
        }
    }
    complaints
}

/// The version that would be published has its section.
fn the_changelog_has_the_version(repository: &Repository) -> Vec<String> {
    let manifest = repository.text("Cargo.toml");
    let package = manifest.split_once("[workspace.package]").map_or("", |(_, package)| package);
    let version = package.lines().find_map(|line| line.strip_prefix("version = ")).unwrap_or("").trim_matches('"');
    match repository.text("CHANGELOG.md").lines().any(|line| line.starts_with(&format!("## [{version}]"))) {
        true => Vec::new(),
        false => vec![format!("CHANGELOG.md: no section `## [{version}]`")],
    }
}

/// A sentence of a specification, by the address of its section.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sentence {
    section: String,
    text: String,
}

impl Sentence {
    fn new<'a>(section: &str, lines: impl Iterator<Item = &'a str>) -> Self {
        let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
        Self { section: section.trim().to_owned(), text: words.join(" ") }
    }
}

/// The citations of one file: `//= <address>#<section>`, then the sentence in lines of `//# `.
fn citations(text: &str) -> Vec<Sentence> {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let sections = lines.iter().enumerate().filter_map(|(index, line)| Some((index, line.strip_prefix("//= ")?)));
    let sentence = |(index, section)| {
        let quoted = lines[index + 1..].iter().map_while(|line| line.strip_prefix("//#"));
        Sentence::new(section, quoted)
    };
    sections.map(sentence).collect()
}

/// The sentences that `docs/citations.md` lists, each with the files that obey or test it.
fn listed(text: &str) -> Result<BTreeMap<Sentence, Vec<String>>, String> {
    let mut sentences = BTreeMap::new();
    for block in text.split("\n\n").map(str::trim).filter(|block| block.starts_with("https://")) {
        let section = block.lines().next().unwrap_or_default();
        let sentence = Sentence::new(section, block.lines().filter_map(|line| line.strip_prefix("> ")));
        let mut files = Vec::new();
        let mut is_open = false;
        for line in block.lines().skip(1).filter(|line| !line.starts_with("> ")) {
            match line.strip_prefix("- obeyed in ").or_else(|| line.strip_prefix("- tested in ")) {
                Some(file) => files.push(file.trim().trim_matches('`').to_owned()),
                None if line == "- not yet" || line.starts_with("- not obeyed: ") => is_open = true,
                None => return Err(format!("`{line}` below {section}")),
            }
        }
        if sentence.text.is_empty() || is_open != files.is_empty() {
            return Err(format!(
                "{section}: wants a sentence, and either files or why there are none: {}",
                sentence.text
            ));
        }
        if sentences.insert(sentence, files).is_some() {
            return Err(format!("{section}: listed twice: {block}"));
        }
    }
    Ok(sentences)
}

/// The list of sentences and the citations in the code say the same.
fn citations_are_listed(repository: &Repository) -> Vec<String> {
    let path = "docs/citations.md";
    let listed = match listed(repository.text(path)) {
        Ok(listed) => listed,
        Err(complaint) => return vec![format!("{path}: {complaint}")],
    };
    let mut complaints = Vec::new();
    for (file, text) in repository.files("", ".rs").filter(|(file, _)| !file.ends_with("/tidy.rs")) {
        for citation in citations(text) {
            match listed.get(&citation) {
                None => complaints.push(format!("{file}: {path} does not list {citation:?}")),
                Some(files) if !files.iter().any(|listed| listed == file) => {
                    complaints.push(format!("{path}: add `- obeyed in {file}`, or `tested in`, to {citation:?}"));
                }
                Some(_) => {}
            }
        }
    }
    for (sentence, files) in &listed {
        for file in files.iter().filter(|file| !citations(repository.text(file)).contains(sentence)) {
            complaints.push(format!("{path}: {file} does not cite {sentence:?}"));
        }
    }
    complaints
}

/// An example is read whole, or not at all. A server that curl can log in to takes more: one may be long, for that. What they share is
/// none.
fn examples_are_short(repository: &Repository) -> Vec<String> {
    const LINES: usize = 60;
    const OTHERS: [&str; 2] = ["examples/ftps_ccc.rs", "examples/lib.rs"];
    let examples = repository.files("examples/", ".rs").filter(|(path, _)| !path.starts_with("examples/tests/"));
    let examples = examples.filter(|(path, _)| !OTHERS.contains(path));
    let long = examples.filter(|(_, text)| text.lines().count() > LINES);
    long.map(|(path, text)| format!("{path}: {} lines, more than {LINES}", text.lines().count())).collect()
}

/// Each invariant of the map, a paragraph or list item that begins in bold, names tests, and there are such tests.
fn invariants_name_their_tests(repository: &Repository) -> Vec<String> {
    let path = "docs/ARCHITECTURE.md";
    let map = repository.text(path);
    let is_invariant = |block: &&str| block.trim_start_matches("- ").starts_with("**");
    let invariants: Vec<&str> = map.split("\n\n").flat_map(|block| block.split("\n- ")).map(str::trim).collect();
    let invariants: Vec<&str> = invariants.into_iter().filter(is_invariant).collect();
    if invariants.is_empty() {
        return vec![format!("{path}: no invariant")];
    }
    let mut complaints = Vec::new();
    for invariant in invariants {
        let tests = invariant.split_once("tested by:").map_or("", |(_, tests)| tests);
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            complaints.push(format!("{path}: names no test: {invariant}"));
        }
        for name in names {
            if !repository.has_function(name) {
                complaints.push(format!("{path}: there is no test `{name}`"));
            }
        }
    }
    complaints
}

/// In the table of guarantees each cell says yes, or no and why; the tests that it names are there, and a row has at least one.
fn guarantees_name_their_tests(repository: &Repository) -> Vec<String> {
    let path = "docs/integrations.md";
    let rows = repository.text(path).lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut complaints = Vec::new();
    let mut count = 0;
    for row in rows {
        count += 1;
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [guarantee, answers @ .., tests] = &cells[..] else {
            complaints.push(format!("{path}: too short: {row}"));
            continue;
        };
        for answer in answers {
            if *answer != "yes" && !answer.starts_with("yes: `") && !answer.starts_with("no: ") {
                complaints.push(format!("{path}: {guarantee}: `{answer}` is neither yes nor a no with its reason"));
            }
        }
        if !tests.starts_with('`') {
            complaints.push(format!("{path}: {guarantee}: names no test"));
        }
        let yes = answers.iter().filter(|answer| answer.starts_with("yes"));
        for name in yes.chain([tests]).flat_map(|cell| cell.split('`').skip(1).step_by(2)) {
            if !repository.has_function(name) {
                complaints.push(format!("{path}: {guarantee}: there is no test `{name}`"));
            }
        }
    }
    if count == 0 {
        complaints.push(format!("{path}: no guarantee"));
    }
    complaints
}

/// Whoever looks for an event finds it in the guide.
fn events_are_listed(repository: &Repository) -> Vec<String> {
    let path = "docs/guides/observability.md";
    let mut complaints = Vec::new();
    for (file, text) in repository.files(LIBRARY, ".rs") {
        for event in text.split("tracing::").skip(1).filter(|event| {
            ["error!(", "warn!(", "info!(", "debug!(", "debug_span!("].iter().any(|name| event.starts_with(name))
        }) {
            let event = event.split_once(';').map_or(event, |(event, _)| event);
            let name = event.split('"').nth(1).unwrap_or_default();
            if !repository.text(path).contains(&format!("`{name}`")) {
                complaints.push(format!("{path}: says nothing of {file}'s `{name}`"));
            }
        }
    }
    complaints
}

type Rule = fn(&Repository) -> Vec<String>;

#[track_caller]
fn assert_kept(rule: Rule) {
    let complaints = rule(&Repository::here());
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn purity() {
    assert_kept(the_table_is_pure);
}

#[test]
fn layers() {
    assert_kept(rustls_is_touched_in_few_files);
}

#[test]
fn documentation() {
    assert_kept(documentation_has_its_headings);
}

#[test]
fn leftovers() {
    assert_kept(nothing_is_left_behind);
}

#[test]
fn changelog() {
    assert_kept(the_changelog_has_the_version);
}

#[test]
fn citations_of_specifications() {
    assert_kept(citations_are_listed);
}

#[test]
fn examples() {
    assert_kept(examples_are_short);
}

#[test]
fn invariants() {
    assert_kept(invariants_name_their_tests);
}

#[test]
fn events() {
    assert_kept(events_are_listed);
}

#[test]
fn guarantees() {
    assert_kept(guarantees_name_their_tests);
}

/// A rule, the files it is shown, and the number of complaints that are due.
type Case<'a> = (Rule, &'a [(&'a str, &'a str)], usize);

#[test]
fn every_rule_can_fail() {
    const SENTENCE: &str = "//= https://example.org/spec#1\n//# It MUST\n//#  end.\n";
    const ENTRY: &str = "https://example.org/spec#1\n> It MUST end.\n- tested in a.rs";
    let long = "\n".repeat(61);
    let closing = "crates/tls-shutdown/src/tls/close_state.rs";
    let path = concat!("see /tm", "p/x");
    let sleep = concat!("std::thread::", "sleep(t);");
    let fenced = "/// ```\n/// # Cancel safety\n/// ```\npub async fn f() {}";
    let table = "docs/integrations.md";
    let warning = "tracing::warn!(%error, \"it fails\");";
    let version = "[workspace.package]\nversion = \"1.2.3\"";
    let cases: &[Case] = &[
        (the_table_is_pure, &[(closing, "use crate::tls::report::Ending;\n// tokio")], 0),
        (the_table_is_pure, &[(closing, "use crate::session::TlsSession;")], 1),
        (the_table_is_pure, &[(closing, "let now = tokio::time::Instant::now();")], 1),
        (rustls_is_touched_in_few_files, &[("crates/tls-shutdown/src/tls/session.rs", "use rustls::Error;")], 0),
        (rustls_is_touched_in_few_files, &[(closing, "/// as rustls does")], 0),
        (rustls_is_touched_in_few_files, &[(closing, "fn f(e: &rustls::Error) {}")], 1),
        (documentation_has_its_headings, &[(closing, "/// # Cancel safety\n#[must_use]\npub async fn f() {}")], 0),
        (documentation_has_its_headings, &[(closing, fenced)], 1),
        (documentation_has_its_headings, &[(closing, "pub fn f(\n    &self,\n) -> AsyncShutdown<Self> {")], 1),
        (documentation_has_its_headings, &[(closing, "/// # Cancellation safety\nstruct S;")], 1),
        (documentation_has_its_headings, &[(closing, "/// # Panics\n/// # Errors\nfn f() {}")], 1),
        (nothing_is_left_behind, &[("README.md", path), ("Cargo.lock", path)], 1),
        (nothing_is_left_behind, &[("a.rs", sleep), ("clippy.toml", sleep)], 1),
        (the_changelog_has_the_version, &[("Cargo.toml", version), ("CHANGELOG.md", "## [1.2.3] - unreleased")], 0),
        (the_changelog_has_the_version, &[("Cargo.toml", version), ("CHANGELOG.md", "## [1.2.2]")], 1),
        (citations_are_listed, &[("a.rs", SENTENCE), ("docs/citations.md", ENTRY)], 0),
        (citations_are_listed, &[("a.rs", SENTENCE), ("docs/citations.md", "")], 1),
        (citations_are_listed, &[("a.rs", SENTENCE), ("b.rs", SENTENCE), ("docs/citations.md", ENTRY)], 1),
        (citations_are_listed, &[("a.rs", ""), ("docs/citations.md", ENTRY)], 1),
        (citations_are_listed, &[("docs/citations.md", "https://example.org/spec#1\n> It MUST end.")], 1),
        (examples_are_short, &[("examples/a.rs", &long[..60]), ("examples/tests/a.rs", &long)], 0),
        (examples_are_short, &[("examples/a.rs", &long), ("examples/src/bin/b.rs", &long)], 2),
        (examples_are_short, &[("examples/ftps_ccc.rs", &long), ("examples/ftps.rs", &long)], 1),
        (invariants_name_their_tests, &[("docs/ARCHITECTURE.md", "**A.** tested by: `a`"), ("a.rs", "fn a() {}")], 0),
        (invariants_name_their_tests, &[("docs/ARCHITECTURE.md", "**A.** tested by: `a`"), ("a.rs", "// fn a()")], 1),
        (
            invariants_name_their_tests,
            &[("docs/ARCHITECTURE.md", "- **A.** tested by: `a`\n- **B.**"), ("a.rs", "fn a()")],
            1,
        ),
        (invariants_name_their_tests, &[("docs/ARCHITECTURE.md", "A.")], 1),
        (guarantees_name_their_tests, &[(table, "| g | a | t |\n|---|\n| G | yes | `a` |"), ("a.rs", "fn a()")], 0),
        (guarantees_name_their_tests, &[(table, "| g | a | t |\n| G | no: why | `a` |"), ("a.rs", "fn a()")], 0),
        (guarantees_name_their_tests, &[(table, "| g | a | t |\n| G | no | `a` |"), ("a.rs", "fn a()")], 1),
        (guarantees_name_their_tests, &[(table, "| g | a | t |\n| G | yes: `b` | `a` |"), ("a.rs", "fn a()")], 1),
        (guarantees_name_their_tests, &[(table, "| g | a | t |\n| G | yes | |")], 1),
        (guarantees_name_their_tests, &[(table, "| g | a | t |")], 1),
        (events_are_listed, &[(closing, warning), ("docs/guides/observability.md", "`it fails`")], 0),
        (events_are_listed, &[(closing, warning), ("docs/guides/observability.md", "it fails")], 1),
    ];
    for (number, (rule, files, complaints)) in cases.iter().enumerate() {
        let found = rule(&Repository::of(files));
        assert_eq!(found.len(), *complaints, "case {number}: {found:?}");
    }
}
