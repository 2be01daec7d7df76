//! The handbook: every page is in the book and in rustdoc, links reach something, and what a page shows of another file is that file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::{
    pictures::draw,
    repository::{LIBRARY, Repository, numbered},
};

pub(crate) const GUIDE: &str = "crates/tls-shutdown/guide/";
/// The pages as rustdoc shows them, and the repository as the world sees it.
const PUBLISHED: &str = "https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/";
const REPOSITORY: &str = "https://github.com/tls-shutdown/tls-shutdown/blob/main/";

/// The pages by their names, without what is no page.
fn pages(repository: &Repository) -> BTreeMap<&str, &str> {
    let files = repository.files(GUIDE, ".md").filter_map(|(path, text)| {
        let name = path.strip_prefix(GUIDE)?.strip_prefix("src/")?.strip_suffix(".md")?;
        (name != "SUMMARY").then_some((name, text))
    });
    files.collect()
}

/// The lines that are no code, with their numbers. What is in backticks is left out.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut in_code = false;
    numbered(text).filter_map(move |(number, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        (!in_code && !is_fence).then(|| (number, line.split('`').step_by(2).collect::<Vec<_>>().join("`")))
    })
}

/// The anchors of a page, as mdBook, rustdoc and GitHub make them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_code = false;
    let lines = text.lines().filter(|line| {
        in_code ^= line.trim_start().starts_with("```");
        !in_code
    });
    let headings =
        lines.filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let slug = |heading: String| {
        let characters = heading.chars().map(|character| if character == ' ' { '-' } else { character });
        characters.filter(|character| character.is_alphanumeric() || "-_".contains(*character)).collect()
    };
    headings.map(slug).collect()
}

/// The definitions of links on a page: the label, and where it leads.
fn definitions(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: "))
}

/// Each page is in the table of contents and in the library's documentation.
pub(crate) fn pages_are_published(repository: &Repository) -> Vec<String> {
    let summary = repository.text(&format!("{GUIDE}src/SUMMARY.md"));
    let library = repository.text(&format!("{LIBRARY}guide.rs"));
    let mut complaints = Vec::new();
    for (page, text) in pages(repository) {
        if summary.matches(&format!("({page}.md)")).count() != 1 {
            complaints.push(format!("{page}.md: is not once in SUMMARY.md"));
        }
        let module = format!("\"../guide/src/{page}.md\"");
        if library.matches(&module).count() != 1 {
            complaints.push(format!("{page}.md: guide.rs does not include it once"));
        }
        if page != "introduction" && !library.contains(&format!("page!({}, {module}", page.replace('-', "_"))) {
            complaints.push(format!("{page}.md: its module has another name"));
        }
        if !text.starts_with("# ") {
            complaints.push(format!("{page}.md: begins with no title"));
        }
    }
    complaints
}

/// Where a link leads to nothing. Links to other sites are not followed.
fn broken(repository: &Repository, from: &str, link: &str) -> Option<String> {
    let guide = format!("{GUIDE}src/");
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let path = path.split('?').next().unwrap_or_default();
    let path = if let Some(path) = path.strip_prefix(REPOSITORY) {
        path.to_owned()
    } else if let Some(page) = path.strip_prefix(PUBLISHED) {
        format!("{guide}{}.md", page.trim_end_matches("index.html").trim_end_matches('/').replace('_', "-"))
    } else if path.contains("://") {
        return None;
    } else if path.is_empty() {
        from.to_owned()
    } else {
        let mut folders: Vec<&str> = from.split('/').collect();
        folders.pop();
        for part in path.split('/') {
            match part {
                ".." => drop(folders.pop()),
                part => folders.push(part),
            }
        }
        folders.join("/")
    };
    let path = if path == format!("{guide}.md") { format!("{guide}introduction.md") } else { path };
    let is_there = repository.files(path.trim_end_matches('/'), "").next().is_some();
    let has_anchor = anchor.is_empty() || anchors(repository.text(&path)).contains(anchor);
    (!is_there || !has_anchor).then(|| format!("{from}: leads to nothing: {link}"))
}

/// Every link in a document leads to a file and to a heading in it. In the handbook, links to other pages have labels, so that rustdoc can lead
/// them to its own pages.
pub(crate) fn links_reach_something(repository: &Repository) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in repository.files("", ".md").filter(|(path, _)| !path.ends_with(RUSTDOC_LINKS)) {
        let is_page = path.starts_with(GUIDE) && !path.ends_with("SUMMARY.md");
        let defined: BTreeMap<&str, &str> = definitions(text).collect();
        let mut used = BTreeSet::new();
        for (number, line) in prose(text) {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                complaints.extend(broken(repository, path, link));
                if is_page && !link.starts_with('#') && !link.contains("://") {
                    complaints.push(format!("{path}:{number}: give this link a label, for rustdoc: {link}"));
                }
            }
            for label in line.split("][").skip(1).filter_map(|rest| rest.split(']').next()) {
                used.insert(label.to_owned());
                if !defined.contains_key(label) {
                    complaints.push(format!("{path}:{number}: `{label}` is not defined"));
                }
            }
        }
        complaints.extend(defined.values().filter_map(|link| broken(repository, path, link)));
        let is_unused = |label: &&&str| is_page && !used.contains(**label);
        complaints.extend(defined.keys().filter(is_unused).map(|label| format!("{path}: nobody uses `{label}`")));
    }
    for (path, text) in repository.files("crates/", ".rs") {
        let links =
            text.split(PUBLISHED).skip(1).filter_map(|rest| rest.split(['"', ' ', '>', ')', '`', '\\', '\n']).next());
        let links = links.filter(|link| !link.ends_with(['{', '/', '=']));
        complaints.extend(links.filter_map(|link| broken(repository, path, &format!("{PUBLISHED}{link}"))));
    }
    complaints
}

/// The pages with the present text of each file that they show: the code block behind `<!-- file: NAME -->`, by their paths.
pub(crate) fn pages_with_their_files(repository: &Repository) -> Result<BTreeMap<String, String>, String> {
    let mut written = BTreeMap::new();
    for (page, text) in pages(repository) {
        let mut parts = text.split("<!-- file: ");
        let mut current = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let no_block = || format!("{page}.md: no code block follows the name of a file");
            let (name, rest) = part.split_once(" -->\n\n```").ok_or_else(no_block)?;
            let (language, rest) = rest.split_once('\n').ok_or_else(no_block)?;
            let (_, after) = rest.split_once("\n```\n").ok_or_else(no_block)?;
            let file = repository.text(&format!("{GUIDE}{name}"));
            if file.is_empty() {
                return Err(format!("{page}.md: there is no file {name}"));
            }
            let _ = write!(current, "<!-- file: {name} -->\n\n```{language}\n{file}```\n{after}");
        }
        written.insert(format!("{GUIDE}src/{page}.md"), current);
    }
    Ok(written)
}

/// The links of the pages as rustdoc needs them, and the pictures.
const RUSTDOC_LINKS: &str = "rustdoc-links.md";

/// The files that are made of others, by their paths: pictures, and links for rustdoc.
pub(crate) fn generated(repository: &Repository) -> Result<BTreeMap<String, String>, String> {
    let mut files = BTreeMap::new();
    let folder = format!("{GUIDE}src/pictures/");
    for (path, text) in repository.files(&folder, ".txt") {
        let picture = draw(text).map_err(|error| format!("{path}: {error}"))?;
        files.insert(path.replace(".txt", ".svg"), picture);
    }
    let mut links: BTreeMap<&str, String> = BTreeMap::new();
    for (page, text) in pages(repository) {
        for (label, link) in definitions(text).filter(|(_, link)| !link.contains("://")) {
            let target = match link.strip_prefix("pictures/") {
                Some(_) => {
                    let picture = files.get(&format!("{GUIDE}src/{link}"));
                    data_url(picture.ok_or_else(|| format!("{page}.md: no text for the picture {link}"))?)
                }
                None => {
                    let (name, anchor) = link.split_once(".md").unwrap_or((link, ""));
                    format!("crate::guide::{}{anchor}", name.replace('-', "_"))
                }
            };
            if links.insert(label, target.clone()).is_some_and(|other| other != target) {
                return Err(format!("{page}.md: `{label}` leads elsewhere on another page"));
            }
        }
    }
    let links = links.iter().map(|(label, target)| format!("[{label}]: {target}\n")).collect();
    files.insert(format!("{GUIDE}{RUSTDOC_LINKS}"), links);
    Ok(files)
}

/// A picture within a link, for a page of rustdoc, which has no files beside it.
fn data_url(svg: &str) -> String {
    let mut url = "data:image/svg+xml,".to_owned();
    for byte in svg.bytes() {
        match byte {
            b'\n' => {}
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b':' | b';' | b',' | b'/' | b'=' => {
                url.push(byte.into())
            }
            byte => {
                let _ = write!(url, "%{byte:02X}");
            }
        }
    }
    url
}

/// What is made of other files is up to date, and nothing else is there.
pub(crate) fn generated_files_are_current(repository: &Repository) -> Vec<String> {
    let expected = match generated(repository).and_then(|mut files| {
        files.append(&mut pages_with_their_files(repository)?);
        Ok(files)
    }) {
        Ok(expected) => expected,
        Err(complaint) => return vec![complaint],
    };
    let changed = expected
        .iter()
        .filter(|(path, text)| repository.text(path) != **text)
        .map(|(path, _)| format!("{path}: is not current: run this test with TLS_SHUTDOWN_WRITE_HANDBOOK=1"));
    let drawn = repository.files(GUIDE, ".svg").map(|(path, _)| path).filter(|path| !expected.contains_key(*path));
    let shown: String = pages(repository).values().copied().collect();
    let folder = format!("{GUIDE}balancers/");
    let hidden = repository.files(&folder, "").map(|(path, _)| path.strip_prefix(GUIDE).unwrap_or(path));
    let hidden = hidden.filter(|name| !shown.contains(&format!("<!-- file: {name} -->")));
    changed
        .chain(drawn.map(|path| format!("{path}: has no text of which it is drawn")))
        .chain(hidden.map(|name| format!("{name}: no page shows it")))
        .collect()
}

/// A search finds an error only if its whole text is on one line.
pub(crate) fn error_messages_are_one_line(repository: &Repository) -> Vec<String> {
    let path = format!("{GUIDE}src/errors.md");
    let blocks = repository.text(&path).split("```text\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    blocks.filter(|block| block.contains('\n')).map(|block| format!("{path}: more than one line: {block}")).collect()
}
