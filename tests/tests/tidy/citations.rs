//! The sentences of specifications: `docs/citations.md` lists those that the code cites.

use std::collections::BTreeMap;

use crate::repository::Repository;

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
                "{section}: a sentence is missing, or it has neither files nor a reason why not: {}",
                sentence.text
            ));
        }
        if sentences.insert(sentence, files).is_some() {
            return Err(format!("{section}: listed twice: {block}"));
        }
    }
    Ok(sentences)
}

/// The list has exactly the sentences that the code cites, each with its files.
pub(crate) fn citations_are_listed(repository: &Repository) -> Vec<String> {
    let path = "docs/citations.md";
    let listed = match listed(repository.text(path)) {
        Ok(listed) => listed,
        Err(complaint) => return vec![format!("{path}: {complaint}")],
    };
    let mut complaints = Vec::new();
    for (file, text) in repository.files("", ".rs").filter(|(file, _)| !file.starts_with("tests/tests/tidy/")) {
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
