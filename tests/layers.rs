//! The crate's own rules, checked on its source: dependencies run one way, unsafe code has one home, files stay short.

#[path = "layers/rust.rs"]
mod rust;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rust::{Reference, modules, reexports, references, without_text};

/// Modules may use those of earlier rows, and those of their own row as long as no circle comes of it.
const LAYERS: &[&[&str]] = &[
    &["clock", "error", "ids", "labels", "mac", "undo"],
    &["sys"],
    &["abi", "ipam", "netlink", "netns", "state", "sysctl"],
    &["maps", "program"],
    &["tables"],
    &["conntrack", "events", "identity", "ipcache"],
    &["endpoint", "enforcement", "policy", "service"],
    &["datapath"],
    &["api", "cni"],
];

const MAX_LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below `dir` whose names end so, as paths from the crate's root, with their content.
fn files(dir: &str, suffixes: &[&str]) -> Vec<(PathBuf, String)> {
    let (mut files, mut dirs) = (Vec::new(), vec![root().join(dir)]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of the crate") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                dirs.push(path);
            } else if suffixes.iter().any(|suffix| path.to_string_lossy().ends_with(suffix)) {
                let text = fs::read_to_string(&path).expect("text");
                files.push((path.strip_prefix(root()).expect("below the root").to_owned(), text));
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "nothing to check in {dir}");
    files
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The modules from the crate's root to this file, so `["ipam", "pool"]` for src/ipam/pool.rs.
fn module_path(file: &Path) -> Vec<String> {
    let below = file.strip_prefix("src").expect("a source file").with_extension("");
    let mut parts: Vec<_> = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// Every use of one top-level module by another, and every reason to complain.
fn examine(root_module: &str, files: &[(PathBuf, String)]) -> (BTreeMap<String, BTreeSet<String>>, Vec<String>) {
    let declared = modules(root_module);
    let names = reexports(root_module);
    let mut complaints: Vec<_> = declared
        .iter()
        .filter(|module| layer(module).is_none())
        .map(|module| format!("module {module} has no place in LAYERS of tests/layers.rs"))
        .collect();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in files {
        let path = module_path(file);
        let Some(own) = path.first().filter(|own| declared.contains(*own)) else { continue };
        for Reference { name, line } in references(text, path.len()) {
            let at = format!("{}:{line}", file.display());
            let target = if declared.contains(&name) { Some(&name) } else { names.get(&name) };
            let Some(target) = target else {
                complaints
                    .push(format!("{at}: crate::{name} is neither a module nor re-exported by src/lib.rs by name"));
                continue;
            };
            if target == own {
                continue;
            }
            uses.entry(own.clone()).or_default().insert(target.clone());
            if layer(target) > layer(own) {
                complaints.push(format!("{at}: {own} uses {target}, which is above it"));
            }
        }
    }
    (uses, complaints)
}

/// A circle in `uses`, if there is one.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    // take away, again and again, what uses nothing that is left; a circle is what stays
    let mut left = uses.clone();
    loop {
        let before = left.len();
        let keys: BTreeSet<_> = left.keys().cloned().collect();
        left.retain(|_, targets| targets.iter().any(|target| keys.contains(target)));
        if left.len() == before {
            break;
        }
    }
    let mut at = left.keys().next()?.clone();
    let mut path = Vec::new();
    while !path.contains(&at) {
        let next = left[&at].iter().find(|target| left.contains_key(*target)).expect("kept for one").clone();
        path.push(std::mem::replace(&mut at, next));
    }
    let begin = path.iter().position(|module| *module == at).expect("found above");
    Some(path.split_off(begin))
}

#[test]
fn dependencies_run_one_way() {
    let sources = files("src", &[".rs"]);
    let root_module = fs::read_to_string(root().join("src/lib.rs")).expect("the crate's root");
    let (uses, complaints) = examine(&root_module, &sources);
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    assert_eq!(circle(&uses), None, "modules of one row use each other in a circle");
    // the examination sees something at all
    assert!(uses["ipam"].contains("state") && uses["ipam"].contains("error"), "{uses:?}");
}

#[test]
fn violations_are_found() {
    let root_module = "mod error; pub mod state;\npub mod ipam; pub mod netlink; pub mod maps; pub mod cni; pub mod novel;\npub use error::{Error, Result};";
    let sample = |name: &str, text: &str| examine(root_module, &[(PathBuf::from(name), text.to_owned())]).1;
    let complains = |name: &str, text: &str, about: &str| {
        let complaints = sample(name, text);
        assert!(complaints.iter().any(|complaint| complaint.contains(about)), "{name}: {text:?}: {complaints:?}");
    };
    complains(
        "src/ipam/pool.rs",
        "\nuse crate::{Error, maps::{HashMap, state}};",
        "src/ipam/pool.rs:2: ipam uses maps",
    );
    complains("src/ipam/mod.rs", "fn f() { crate::cni::add() }", "ipam uses cni");
    complains("src/ipam/mod.rs", "fn f() { super::cni::add() }", "ipam uses cni");
    complains("src/ipam/pool.rs", "mod a { fn f() {} use super::super::super::maps; }", "ipam uses maps");
    complains("src/state.rs", "#[cfg(test)] mod tests { use crate::maps::X; }", "state uses maps");
    complains("src/state.rs", "macro_rules! m { () => { $crate::maps::X } }", "state uses maps");
    complains("src/error.rs", "use crate::ipam as other;", "error uses ipam");
    complains("src/ipam/mod.rs", "use crate::Unknown;", "crate::Unknown is neither");
    complains("src/ipam/mod.rs", "", "module novel has no place");

    let fine = "// crate::maps\n/* crate::maps /* nested */ crate::cni */ use crate::{Error, state};\n\
                const A: &str = \"crate::maps\"; const B: &str = r#\"\" crate::maps\"#; const C: char = '\"'; use super::pool;";
    let only_novel = sample("src/ipam/pool.rs", fine);
    assert_eq!(only_novel.len(), 1, "{only_novel:?}");

    let both_ways = [
        ("src/ipam.rs", "use crate::netlink;"),
        ("src/netlink.rs", "use crate::state;"),
        ("src/state.rs", "use crate::ipam;"),
    ];
    let both_ways = both_ways.map(|(name, text)| (PathBuf::from(name), text.to_owned()));
    assert_eq!(
        circle(&examine(root_module, &both_ways).0),
        Some(vec!["ipam".into(), "netlink".into(), "state".into()])
    );
    assert_eq!(circle(&examine(root_module, &both_ways[..2]).0), None);
}

#[test]
fn unsafe_code_lives_in_sys_alone() {
    let is_word =
        |text: &str| text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|word| word == "unsafe");
    assert!(is_word(&without_text("fn f() { unsafe { g() } }")));
    assert!(!is_word(&without_text("#![deny(unsafe_code)] // unsafe\nconst A: &str = \"unsafe\";")));
    let mut homes = 0;
    for (file, text) in files("src", &[".rs"]) {
        let found = is_word(&without_text(&text));
        if file.starts_with("src/sys") {
            homes += usize::from(found);
        } else {
            assert!(!found, "{}: unsafe code belongs to src/sys", file.display());
        }
    }
    assert!(homes > 0, "src/sys has none: this test looks at the wrong place");
}

#[test]
fn files_stay_short() {
    let ours = |(file, _): &(PathBuf, String)| !file.starts_with("bpf/vendor");
    let sources = files("src", &[".rs"]).into_iter().chain(files("bpf", &[".c", ".h"]).into_iter().filter(ours));
    let long: Vec<_> = sources
        .map(|(file, text)| (text.lines().count(), file))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, file)| format!("{}: {lines} lines, at most {MAX_LINES}: split it by concern", file.display()))
        .collect();
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}
