//! The rules of the repository, as tests. Each rule is a function from the repository's text to a list of complaints, so that
//! `every_rule_can_fail` can show it a text that breaks it.

mod citations;
mod files;
mod handbook;
mod layout;
mod library;
mod pictures;
mod promises;
mod readme;
mod repository;

use citations::citations_are_listed;
use files::{examples_are_short, nothing_is_left_behind, tests_await_events, the_changelog_has_the_version};
use handbook::{
    error_messages_are_one_line, generated, generated_files_are_current, links_reach_something, pages_are_published,
    pages_with_their_files,
};
use layout::{connections_know_no_features, files_are_short, files_have_no_circles, imports_go_down};
use library::{documentation_has_its_headings, events_are_listed, rustls_is_touched_in_few_files, the_table_is_pure};
use promises::{guarantees_name_their_tests, invariants_name_their_tests, rules_name_their_tests, tests_named_in};
use readme::{the_comparison_has_its_sources, the_packaged_readme_has_absolute_links};
use repository::Repository;

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
fn imports_run_downwards() {
    assert_kept(imports_go_down);
}

#[test]
fn features() {
    assert_kept(connections_know_no_features);
}

#[test]
fn circles() {
    assert_kept(files_have_no_circles);
}

#[test]
fn lengths() {
    assert_kept(files_are_short);
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
    // Where each is, for `cargo test --test tidy invariants -- --nocapture`.
    println!("{}", tests_named_in(&Repository::here(), "docs/ARCHITECTURE.md").join("\n"));
}

#[test]
fn events() {
    assert_kept(events_are_listed);
}

#[test]
fn guarantees() {
    assert_kept(guarantees_name_their_tests);
    println!("{}", tests_named_in(&Repository::here(), "docs/integrations.md").join("\n"));
}

#[test]
fn rules() {
    assert_kept(rules_name_their_tests);
}

#[test]
fn waits() {
    assert_kept(tests_await_events);
}

#[test]
fn packaged_readme() {
    assert_kept(the_packaged_readme_has_absolute_links);
}

#[test]
fn comparison() {
    assert_kept(the_comparison_has_its_sources);
}

#[test]
fn pages() {
    assert_kept(pages_are_published);
}

#[test]
fn links() {
    assert_kept(links_reach_something);
}

#[test]
fn handbook_is_current() {
    if std::env::var_os("TLS_SHUTDOWN_WRITE_HANDBOOK").is_some() {
        for write in [pages_with_their_files, generated] {
            for (path, text) in write(&Repository::here()).expect("pages that are understood") {
                Repository::write(&path, &text);
            }
        }
    }
    assert_kept(generated_files_are_current);
}

#[test]
fn error_messages() {
    assert_kept(error_messages_are_one_line);
}

/// A rule, the files of a repository, and how many complaints the rule must have.
type Case<'a> = (Rule, &'a [(&'a str, &'a str)], usize);

#[test]
fn every_rule_can_fail() {
    const SENTENCE: &str = "//= https://example.org/spec#1\n//# It MUST\n//#  end.\n";
    const TEST: &str = "#[tokio::test(start_paused = true)]\n/// It holds.\nasync fn a() {";
    const ENTRY: &str = "https://example.org/spec#1\n> It MUST end.\n- tested in a.rs";
    const FEATURE: &str = "#[cfg(feature = \"server\")]";
    let long = "\n".repeat(61);
    let closing = "crates/tls-shutdown/src/tls/close_state.rs";
    let driver = "crates/tls-shutdown/src/tls/driver/mod.rs";
    let server = "crates/tls-shutdown/src/server/mod.rs";
    let path = concat!("see /tm", "p/x");
    let sleep = concat!("std::thread::", "sleep(t);");
    let fenced = "/// ```\n/// # Cancel safety\n/// ```\npub async fn f() {}";
    let map = "docs/ARCHITECTURE.md";
    let rules = "CONTRIBUTING.md";
    let table = "docs/integrations.md";
    let warning = "tracing::warn!(%error, \"it fails\");";
    let link = "![a](docs/a.svg) [b](https://b/c.svg) [c](#d)";
    let absolute =
        "![a](https://github.com/tls-shutdown/tls-shutdown/blob/main/docs/a.svg?raw=true) [b](https://b/c.svg) [c](#d)";
    let packaged = "crates/tls-shutdown/README.md";
    let compared = "## Comparison\n\n| | x |\n|---|---|\n| A | yes |\n";
    let version = "[workspace.package]\nversion = \"1.2.3\"";
    let page = "crates/tls-shutdown/guide/src/a-b.md";
    let summary = ("crates/tls-shutdown/guide/src/SUMMARY.md", "[A](a-b.md)");
    let module = ("crates/tls-shutdown/src/guide.rs", "page!(a_b, \"../guide/src/a-b.md\");");
    let links = "crates/tls-shutdown/guide/rustdoc-links.md";
    let picture = "crates/tls-shutdown/guide/src/pictures/a.txt";
    let shown = "# A\n<!-- file: balancers/a -->\n\n```text\nx\n```\n";
    let published = "// https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/a_b/index.html";
    let cases: &[Case] = &[
        (pages_are_published, &[(page, "# A"), summary, module], 0),
        (pages_are_published, &[(page, "A"), summary, module], 1),
        (pages_are_published, &[(page, "# A"), module], 1),
        (pages_are_published, &[(page, "# A"), summary], 2),
        (links_reach_something, &[(page, "# A\n[x][a] [y](#a) [z](https://b)\n[a]: a-b.md#a")], 0),
        (links_reach_something, &[(page, "# A\n[x](a-b.md)"), ("README.md", "[x](docs)"), ("docs/a.md", "")], 1),
        (links_reach_something, &[(page, "[x][a] [y][b]\n[a]: a-b.md#c\n[c]: a-b.md")], 3),
        (links_reach_something, &[("a/b.md", "[x](../c.md) [y](c.md) `[z](d.md)`"), ("c.md", "")], 1),
        (links_reach_something, &[(page, "# A"), (server, published)], 0),
        (links_reach_something, &[(page, "# A"), (server, &format!("{published}#b"))], 1),
        (generated_files_are_current, &[(page, "# A"), (links, "")], 0),
        (generated_files_are_current, &[(page, "[x][a]\n[a]: a-b.md#a"), (links, "[a]: crate::guide::a_b#a\n")], 0),
        (generated_files_are_current, &[(page, "[x][a]\n[a]: a-b.md#a"), (links, "")], 1),
        (
            generated_files_are_current,
            &[(page, shown), ("crates/tls-shutdown/guide/balancers/a", "x\n"), (links, "")],
            0,
        ),
        (
            generated_files_are_current,
            &[(page, shown), ("crates/tls-shutdown/guide/balancers/a", "y\n"), (links, "")],
            1,
        ),
        (generated_files_are_current, &[(page, shown), (links, "")], 1),
        (generated_files_are_current, &[("crates/tls-shutdown/guide/balancers/a", "y\n"), (links, "")], 1),
        (generated_files_are_current, &[(picture, "title a"), (links, "")], 1),
        (generated_files_are_current, &[(picture, "unknown"), (links, "")], 1),
        (generated_files_are_current, &[("crates/tls-shutdown/guide/src/pictures/b.svg", ""), (links, "")], 1),
        (
            error_messages_are_one_line,
            &[("crates/tls-shutdown/guide/src/errors.md", "```text\na\n```\n```text\nb\nc\n```")],
            1,
        ),
        (the_table_is_pure, &[(closing, "use crate::tls::report::Ending;\n// tokio")], 0),
        (the_table_is_pure, &[(closing, "use crate::session::TlsSession;")], 1),
        (the_table_is_pure, &[(closing, "let now = tokio::time::Instant::now();")], 1),
        (rustls_is_touched_in_few_files, &[("crates/tls-shutdown/src/tls/session.rs", "use rustls::Error;")], 0),
        (rustls_is_touched_in_few_files, &[(closing, "/// as rustls does")], 0),
        (rustls_is_touched_in_few_files, &[(closing, "fn f(e: &rustls::Error) {}")], 1),
        (imports_go_down, &[(closing, "use crate::runtime::timer::Timer;\nuse crate::tls::report::Ending;")], 0),
        (
            imports_go_down,
            &[(closing, "use crate::{\n    runtime::timer::Timer,\n    server::{Server, TlsListener},\n};")],
            2,
        ),
        (imports_go_down, &[(closing, "fn f() { crate::client::g(); }\n// crate::server::h();")], 1),
        (imports_go_down, &[(closing, "use crate::Ending;"), ("crates/tls-shutdown/src/utils/a.rs", "")], 2),
        (
            imports_go_down,
            &[(server, "use super::super::client::A;\n#[cfg(test)]\nmod tests {\n    use crate::client::A;\n}")],
            0,
        ),
        (connections_know_no_features, &[(closing, "#[cfg(unix)]\n//! feature = \"server\""), (server, FEATURE)], 0),
        (connections_know_no_features, &[(closing, FEATURE)], 1),
        (files_have_no_circles, &[(closing, "use super::driver::A;"), (driver, "use super::report::B;")], 0),
        (
            files_have_no_circles,
            &[(closing, "use super::driver::A;"), (driver, "use crate::tls::{a::C, close_state::B};")],
            2,
        ),
        (files_have_no_circles, &[(closing, "pub use super::driver::A;"), (driver, "use super::close_state::B;")], 0),
        (files_are_short, &[(closing, &"fn f() {}\n".repeat(451))], 1),
        (
            files_are_short,
            &[(closing, &format!("{}#[cfg(test)]\nmod tests {{\n{}}}", "a\n".repeat(440), "b\n".repeat(90)))],
            0,
        ),
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
        (invariants_name_their_tests, &[(map, "**A.** tested by: `a`"), ("a.rs", "#[test]\nfn a() {}")], 0),
        (invariants_name_their_tests, &[(map, "**A.** tested by: `a`"), ("a.rs", "// fn a()")], 1),
        (invariants_name_their_tests, &[(map, "- **A.** tested by: `a`\n- **B.**"), ("a.rs", TEST)], 1),
        (invariants_name_their_tests, &[(map, "A.")], 1),
        (invariants_name_their_tests, &[(map, "**A.** tested by: `a`"), ("a.rs", "fn a() {}\n#[test]\nfn b() {}")], 1),
        (
            invariants_name_their_tests,
            &[(map, "**A.** tested by: `a`"), ("a.rs", "proptest! {\n    #[test]\n    fn a(")],
            0,
        ),
        (invariants_name_their_tests, &[(map, "**A.** tested by: `a`"), ("a.rs", "states![\n    b,\n    a,\n];")], 0),
        (invariants_name_their_tests, &[(map, "**A.** tested by: `a`"), ("a.rs", "states![b];\nasync fn a() {}")], 1),
        (rules_name_their_tests, &[(rules, "\n- ✓ **A.** `a`\n- **B.**"), ("tests/tests/tidy/main.rs", TEST)], 0),
        (rules_name_their_tests, &[(rules, "\n- ✓ **A.** `b`"), ("tests/tests/tidy/main.rs", TEST)], 1),
        (rules_name_their_tests, &[(rules, "\n- ✓ **A.** `a`"), ("a.rs", TEST)], 1),
        (rules_name_their_tests, &[(rules, "- **B.**")], 1),
        (guarantees_name_their_tests, &[(table, "| g | a | t |\n|---|\n| G | yes | `a` |"), ("a.rs", TEST)], 0),
        (guarantees_name_their_tests, &[(table, "| g | a | t |\n| G | no: why | `a` |"), ("a.rs", TEST)], 0),
        (guarantees_name_their_tests, &[(table, "| g | a | t |\n| G | no | `a` |"), ("a.rs", TEST)], 1),
        (guarantees_name_their_tests, &[(table, "| g | a | t |\n| G | yes: `b` | `a` |"), ("a.rs", TEST)], 1),
        (guarantees_name_their_tests, &[(table, "| g | a | t |\n| G | yes | |")], 1),
        (guarantees_name_their_tests, &[(table, "| g | a | t |")], 1),
        (guarantees_name_their_tests, &[(table, "| g | a | t |\n| G | yes | `a` |"), ("a.rs", "fn a() {}")], 1),
        (tests_await_events, &[("tests/tests/a.rs", "#[tokio::test(start_paused = true)]\nsleep(t).await;")], 0),
        (tests_await_events, &[("tests/tests/a.rs", "#[tokio::test]\nsleep(t).await;")], 1),
        (tests_await_events, &[("crates/a/tests/a.rs", "// sleep(t)\ntokio::time::interval(t);\nrecv_timeout(t);")], 2),
        (tests_await_events, &[("crates/a/src/a.rs", "sleep(t).await;"), ("tests/src/time.rs", "sleep(t).await;")], 0),
        (tests_await_events, &[("tests/src/time.rs", "pub async fn real_time(time: Duration) {}")], 1),
        (
            tests_await_events,
            &[("tests/tests/a.rs", "// Nothing reports it.\nreal_time(t).await;\nreal_time(t).await;")],
            1,
        ),
        (events_are_listed, &[(closing, warning), ("crates/tls-shutdown/guide/src/observability.md", "`it fails`")], 0),
        (events_are_listed, &[(closing, warning), ("crates/tls-shutdown/guide/src/observability.md", "it fails")], 1),
        (the_packaged_readme_has_absolute_links, &[("README.md", link), ("docs/a.svg", ""), (packaged, absolute)], 0),
        (the_packaged_readme_has_absolute_links, &[("README.md", link), ("docs/a.svg", ""), (packaged, link)], 1),
        (the_packaged_readme_has_absolute_links, &[("README.md", link), (packaged, absolute)], 1),
        (the_comparison_has_its_sources, &[("README.md", compared), ("docs/comparison.md", "# C\n\n## A\n\n- a")], 0),
        (the_comparison_has_its_sources, &[("README.md", compared), ("docs/comparison.md", "## A\n\n## B")], 1),
        (the_comparison_has_its_sources, &[], 1),
    ];
    for (number, (rule, files, complaints)) in cases.iter().enumerate() {
        let found = rule(&Repository::of(files));
        assert_eq!(found.len(), *complaints, "case {number}: {found:?}");
    }
}
