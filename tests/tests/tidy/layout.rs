//! The architecture of the library: folders in one direction, files without circles, none too long.

use std::collections::{BTreeMap, BTreeSet};

use crate::repository::{LIBRARY, Repository, without_tests};

/// The folders from the ground up. Those of one row do not import each other.
const FLOORS: [&[&str]; 5] = [&["runtime"], &["tls"], &["http"], &["server", "client"], &["integrations"]];

/// Imports that run upwards, and why.
const UPWARDS: [(&str, &str, &str); 1] = [(
    "server/mod.rs",
    "integrations",
    "requests need what frameworks look for, and no file of the server knows a framework",
)];

/// The files that import each other, and why.
const CIRCLES: [(&str, &str, &str); 1] = [("server/mod.rs", "integrations/mod.rs", "the import that runs upwards")];

/// The longest file of the library, without its tests.
const MAX_LINES: usize = 450;

fn floor(folder: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&folder))
}

/// The paths of a `use` declaration, its braces expanded.
fn expand(declaration: &str) -> Vec<String> {
    let Some((prefix, rest)) = declaration.split_once('{') else { return vec![declaration.trim().to_owned()] };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, character) in inner.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let parts = parts.into_iter().map(str::trim).filter(|part| !part.is_empty());
    parts.flat_map(expand).map(|part| format!("{}{part}", prefix.trim())).collect()
}

/// The modules that a file imports, from the root of the crate: each `use` that is not public, and each path that begins with `crate`.
fn imports(file: &str, text: &str) -> BTreeSet<String> {
    let text = without_tests(text);
    let mut paths = Vec::new();
    for declaration in text.split("use ").skip(1) {
        paths.extend(expand(declaration.split(';').next().unwrap_or_default()));
    }
    let public: BTreeSet<String> =
        text.split("pub use ").skip(1).flat_map(|use_| expand(use_.split(';').next().unwrap_or_default())).collect();
    paths.retain(|path| !public.contains(path));
    paths.extend(
        text.split("crate::")
            .skip(1)
            .map(|path| format!("crate::{}", path.split([';', '{', ' ']).next().unwrap_or(""))),
    );

    let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let parent = module.rsplit_once('/').map_or("", |(parent, _)| parent);
    let absolute = |path: String| {
        let path = path.replace("::", "/");
        match path.split_once('/')? {
            ("crate", rest) => Some(rest.to_owned()),
            ("self", rest) => Some(format!("{module}/{rest}")),
            ("super", rest) => Some(format!("{parent}/{rest}")),
            _ => None,
        }
    };
    paths.into_iter().filter_map(absolute).map(|path| path.trim_start_matches('/').to_owned()).collect()
}

/// Imports run only downwards, from one folder to another.
pub(crate) fn imports_go_down(repository: &Repository) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in repository.files(LIBRARY, ".rs") {
        let file = path.strip_prefix(LIBRARY).unwrap_or(path);
        let Some((folder, _)) = file.split_once('/') else { continue };
        let Some(from) = floor(folder) else {
            complaints.push(format!("{path}: the folder `{folder}` is on no floor"));
            continue;
        };
        for import in imports(file, text) {
            let target = import.split('/').next().unwrap_or_default();
            let is_allowed = UPWARDS.iter().any(|(from, to, _)| (*from, *to) == (file, target));
            match floor(target) {
                Some(to) if target != folder && to >= from && !is_allowed => {
                    complaints.push(format!("{path}: imports {import}, which is not below {folder}"));
                }
                None if target.starts_with(char::is_uppercase) => {
                    complaints.push(format!("{path}: imports {target} from the root of the crate, name its folder"));
                }
                _ => {}
            }
        }
    }
    complaints
}

/// What is for a server or for a client alone is not in `tls/`: what they need of it is of use to everybody.
pub(crate) fn connections_know_no_features(repository: &Repository) -> Vec<String> {
    let files = repository.files(LIBRARY, ".rs").filter(|(path, _)| path.starts_with(&format!("{LIBRARY}tls/")));
    files
        .flat_map(|(path, text)| text.lines().map(move |line| (path, line)))
        .filter(|(_, line)| line.contains("feature = ") && !line.trim_start().starts_with("//"))
        .map(|(path, line)| format!("{path}: depends on a feature: {}", line.trim()))
        .collect()
}

/// Files do not import each other in a circle.
pub(crate) fn files_have_no_circles(repository: &Repository) -> Vec<String> {
    let files: BTreeMap<&str, &str> =
        repository.files(LIBRARY, ".rs").filter_map(|(path, text)| Some((path.strip_prefix(LIBRARY)?, text))).collect();
    // The longest part of the path that is a file. What is left is the name of an item in it.
    let resolve = |import: &str| {
        let mut module = import;
        loop {
            let found = [format!("{module}.rs"), format!("{module}/mod.rs")]
                .into_iter()
                .find(|file| files.contains_key(&**file));
            if found.is_some() {
                return found;
            }
            module = module.rsplit_once('/')?.0;
        }
    };
    let arrows: BTreeMap<&str, BTreeSet<String>> = files
        .iter()
        .filter(|(file, _)| !file.ends_with("tests.rs"))
        .map(|(file, text)| {
            let targets = imports(file, text).into_iter().filter_map(|import| resolve(&import)).filter(|to| to != file);
            (*file, targets.filter(|to| !CIRCLES.iter().any(|(a, b, _)| (*a, *b) == (*file, &**to))).collect())
        })
        .collect();
    let mut complaints = Vec::new();
    for start in arrows.keys() {
        let (mut open, mut seen) = (vec![(*start).to_owned()], BTreeSet::new());
        while let Some(file) = open.pop() {
            for next in arrows.get(&*file).into_iter().flatten() {
                if next == start {
                    complaints.push(format!("{LIBRARY}{start} is in a circle of imports, by way of {file}"));
                } else if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
    }
    complaints
}

/// A file is one concept.
pub(crate) fn files_are_short(repository: &Repository) -> Vec<String> {
    let files = repository.files(LIBRARY, ".rs").filter(|(path, _)| !path.ends_with("tests.rs"));
    let lines = files.map(|(path, text)| (path, without_tests(text).lines().count()));
    let long = lines.filter(|(_, lines)| *lines > MAX_LINES);
    long.map(|(path, lines)| format!("{path}: {lines} lines without tests, more than {MAX_LINES}")).collect()
}
