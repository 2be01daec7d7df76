//! Promises: the documents name a test for each.

use std::collections::BTreeMap;

use crate::repository::Repository;

/// The tests by their names, each with the files that hold one.
type Tests<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// Why `name` is no test, if it is none.
fn no_test(repository: &Repository, tests: &Tests<'_>, name: &str) -> Option<String> {
    if tests.contains_key(name) {
        return None;
    }
    Some(match &repository.files_with_function(name)[..] {
        [] => format!("there is no test `{name}`"),
        files => format!("`{name}` is no test, but another function of {}", files.join(", ")),
    })
}

/// The tests that a document names in backticks, each with the files that hold it.
pub(crate) fn tests_named_in(repository: &Repository, path: &str) -> Vec<String> {
    let tests = repository.tests();
    let names = repository.text(path).split('`').skip(1).step_by(2);
    names.filter_map(|name| Some(format!("{name}: {}", tests.get(name)?.join(", ")))).collect()
}

/// Each invariant of the map, which is a paragraph or list item that begins in bold, names tests, and they exist.
pub(crate) fn invariants_name_their_tests(repository: &Repository) -> Vec<String> {
    let path = "docs/ARCHITECTURE.md";
    let map = repository.text(path);
    let is_invariant = |block: &&str| block.trim_start_matches("- ").starts_with("**");
    let invariants: Vec<&str> = map.split("\n\n").flat_map(|block| block.split("\n- ")).map(str::trim).collect();
    let invariants: Vec<&str> = invariants.into_iter().filter(is_invariant).collect();
    if invariants.is_empty() {
        return vec![format!("{path}: no invariant")];
    }
    let defined = repository.tests();
    let mut complaints = Vec::new();
    for invariant in invariants {
        let tests = invariant.split_once("tested by:").map_or("", |(_, tests)| tests);
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            complaints.push(format!("{path}: names no test: {invariant}"));
        }
        for name in names {
            complaints.extend(no_test(repository, &defined, name).map(|why| format!("{path}: {why}")));
        }
    }
    complaints
}

/// In the table of guarantees each cell is a yes, or a no with its reason. Each row names a test, and all tests that it names exist.
pub(crate) fn guarantees_name_their_tests(repository: &Repository) -> Vec<String> {
    let path = "docs/integrations.md";
    let rows = repository.text(path).lines().filter(|line| line.starts_with("| ")).skip(1);
    let defined = repository.tests();
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
            complaints.extend(no_test(repository, &defined, name).map(|why| format!("{path}: {guarantee}: {why}")));
        }
    }
    if count == 0 {
        complaints.push(format!("{path}: no guarantee"));
    }
    complaints
}

/// Each rule of the contributors' page with a ✓ names a test of these rules.
pub(crate) fn rules_name_their_tests(repository: &Repository) -> Vec<String> {
    let path = "CONTRIBUTING.md";
    let tests = repository.tests();
    let rules: Vec<&str> = repository.text(path).split("\n- ").filter(|rule| rule.starts_with('✓')).collect();
    let is_tested = |rule: &&str| {
        let names = rule.split("\n\n").next().unwrap_or_default().split('`').skip(1).step_by(2);
        names.filter_map(|name| tests.get(name)).flatten().any(|file| file.ends_with("tidy/main.rs"))
    };
    let untested = rules.iter().filter(|rule| !is_tested(rule)).map(|rule| format!("{path}: names no test: {rule}"));
    untested.chain(rules.is_empty().then(|| format!("{path}: no rule is tested"))).collect()
}
