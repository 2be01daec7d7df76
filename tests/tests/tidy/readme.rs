//! The README, in the repository and in the package, and the page that gives the sources of its comparison.

use crate::repository::Repository;

const README: &str = "README.md";
const PACKAGED: &str = "crates/tls-shutdown/README.md";
const ADDRESS: &str = "https://github.com/tls-shutdown/tls-shutdown/blob/main";

/// The targets of the links in a page.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// What a link leads to in the repository, if it does not lead elsewhere.
fn path(target: &str) -> Option<&str> {
    let path = target.split_once('#').map_or(target, |(path, _)| path);
    (!path.is_empty() && !path.contains("://")).then_some(path)
}

/// The README of the package is the repository's, with absolute links. The registry takes a relative link as relative to the folder of the
/// package, even if its README is the workspace's.
pub(crate) fn the_packaged_readme_has_absolute_links(repository: &Repository) -> Vec<String> {
    let text = repository.text(README);
    let mut expected = text.to_owned();
    let mut complaints = Vec::new();
    for target in targets(text) {
        let Some(path) = path(target) else { continue };
        if repository.files(path, "").next().is_none() {
            complaints.push(format!("{README}: there is no {path}"));
        }
        let raw = if path.ends_with(".svg") { "?raw=true" } else { "" };
        expected = expected.replace(&format!("]({target})"), &format!("]({ADDRESS}/{target}{raw})"));
    }
    if repository.text(PACKAGED) != expected {
        complaints.push(format!("{PACKAGED} is not {README} with absolute links: bash .ci/package-readme"));
    }
    complaints
}

/// Each row of the comparison has a section with the sources of its cells, and there are no other sections.
pub(crate) fn the_comparison_has_its_sources(repository: &Repository) -> Vec<String> {
    let page = "docs/comparison.md";
    let table = repository.text(README).split("## ").find(|section| section.starts_with("Comparison\n"));
    let rows = table.into_iter().flat_map(str::lines).filter(|line| line.starts_with("| ")).skip(1);
    let rows: Vec<&str> = rows.filter_map(|row| row.split('|').nth(1)).map(str::trim).collect();
    let sections: Vec<&str> = repository.text(page).lines().filter_map(|line| line.strip_prefix("## ")).collect();
    match rows == sections && !rows.is_empty() {
        true => Vec::new(),
        false => vec![format!("{page}: the sections {sections:?} are not the rows {rows:?} of {README}")],
    }
}
