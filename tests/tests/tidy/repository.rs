//! The text of the repository, as the rules read it.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

/// The text files that git tracks or would track, by path.
pub(crate) struct Repository(BTreeMap<String, String>);

/// Where the library is.
pub(crate) const LIBRARY: &str = "crates/tls-shutdown/src/";

impl Repository {
    /// This repository.
    pub(crate) fn here() -> Self {
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

    /// Writes a file of this repository, if its text has changed.
    pub(crate) fn write(path: &str, text: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        if fs::read_to_string(&path).ok().as_deref() != Some(text) {
            fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    /// A repository of these files, by path and text.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| (String::from(*path), String::from(*text))).collect())
    }

    /// The files below a folder whose names end so, by path and text.
    pub(crate) fn files<'a>(&'a self, folder: &'a str, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let files = self.0.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        files.filter(move |(path, _)| path.starts_with(folder) && path.ends_with(end))
    }

    /// The text of a file. It is empty if there is no such file.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.0.get(path).map_or("", String::as_str)
    }

    /// The tests by their names, each with the files that hold one.
    pub(crate) fn tests(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (path, text) in self.files("", ".rs") {
            tests(text).into_iter().for_each(|name| files.entry(name).or_default().push(path));
        }
        files
    }

    /// The files with a function of this name.
    pub(crate) fn files_with_function(&self, name: &str) -> Vec<&str> {
        let definition = format!("fn {name}(");
        let has_it = |text: &str| text.lines().any(|line| code(line).contains(&definition));
        self.files("", ".rs").filter(|(_, text)| has_it(text)).map(|(path, _)| path).collect()
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

/// The line without its comment. No string of this repository that matters here contains `//`.
pub(crate) fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

/// The lines with their numbers.
pub(crate) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// Whether the line contains the word, and not only as a part of another.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

/// The names of the tests in a file: the functions with `#[test]` or `#[tokio::test]`, in `proptest!` too, and those of which `states!`
/// makes tests, in one list or in a list over some sockets.
fn tests(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let (mut is_test, mut in_states) = (false, false);
    for line in text.lines().map(|line| code(line).trim()) {
        if in_states || line.starts_with("states![") || line.starts_with("over ") && line.contains(": [") {
            in_states = !line.contains(']');
            let list = line.rsplit('[').next().unwrap_or(line);
            let words = list.split(|c: char| !c.is_alphanumeric() && c != '_');
            names.extend(words.filter(|name| !name.is_empty()));
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if is_test && !line.is_empty() && !line.starts_with("#[") {
            let name = line.split_once("fn ").and_then(|(_, name)| name.split_once('('));
            names.extend(name.map(|(name, _)| name));
            is_test = false;
        }
    }
    names
}

/// The text without comments and without the module of its tests.
pub(crate) fn without_tests(text: &str) -> String {
    let mut lines = Vec::new();
    let mut rest = text.lines();
    while let Some(line) = rest.next() {
        if line.trim_start().starts_with("#[cfg(") && line.contains("test") {
            let Some(next) = rest.next() else { break };
            if !next.trim_end().ends_with(';') {
                let end = format!("{}}}", " ".repeat(next.len() - next.trim_start().len()));
                rest.by_ref().find(|line| *line == end);
            }
            continue;
        }
        lines.push(code(line));
    }
    lines.join("\n")
}
