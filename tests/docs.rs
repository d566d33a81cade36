//! What the pages say that can be compared with the code: layouts and names of maps, drop reasons, links; and what the list of
//! wrong changes does. Rootless.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use podwire::abi;
use podwire::tables::{DropReason, catalog};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    for entry in fs::read_dir(root().join("docs")).expect("the folder of pages") {
        let name = entry.expect("readable").file_name();
        pages.push(Path::new("docs").join(name));
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages
}

/// The texts between backticks.
fn code(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// A struct as a page has it.
#[derive(Debug, Default, PartialEq)]
struct Layout {
    size: usize,
    fields: Vec<(usize, String)>,
}

/// The structs of docs/maps.md: a line with names and size, followed by the fields in the same line or in a table.
fn layouts(page: &str) -> BTreeMap<String, Layout> {
    let mut layouts = BTreeMap::new();
    let mut current = Vec::new();
    for line in page.lines() {
        if let Some((head, rest)) =
            line.split_once(" bytes:").filter(|_| line.trim_start_matches("- ").starts_with('`'))
        {
            let size = head.rsplit(' ').next().and_then(|size| size.parse().ok()).unwrap_or_else(|| panic!("{line}"));
            let fields = rest.split(", ").filter_map(|field| {
                let offset = field.trim().split(' ').next()?.parse().ok()?;
                Some((offset, (*code(field).first()?).to_owned()))
            });
            let fields: Vec<_> = fields.collect();
            current = code(head).into_iter().map(str::to_owned).collect();
            for name in &current {
                layouts.insert(name.clone(), Layout { size, fields: fields.clone() });
            }
        } else if let Some((offset, rest)) = line.strip_prefix("| ").and_then(|row| row.split_once(" | `")) {
            let (Ok(offset), Some((field, _))) = (offset.parse(), rest.split_once('`')) else { continue };
            for name in &current {
                let layout: &mut Layout = layouts.entry(name.clone()).or_default();
                layout.fields.push((offset, field.to_owned()));
            }
        } else if line.starts_with('#') {
            current.clear();
        }
    }
    layouts
}

fn actual<T: abi::Shared>() -> (String, Layout) {
    let fields = T::FIELDS.iter().map(|field| (field.offset, field.name.to_owned())).collect();
    (T::NAME.to_owned(), Layout { size: size_of::<T>(), fields })
}

macro_rules! actual {
    ($($name:ident)+) => { BTreeMap::from([$(actual::<abi::$name>()),+]) };
}

#[test]
fn layouts_of_the_map_reference_are_those_of_the_code() {
    let mut expected = actual![
        EndpointKey EndpointInfo EndpointRow MetricsKey MetricsValue Runtime EventBudget DropNotify TraceNotify
        IpCacheKey RemoteEndpointInfo NodeKey NodeValue PolicyKey PolicyEntry PolicyStatsKey PolicyStatsValue
        Lb4Key Lb6Key Lb4Service Lb6Service Lb4Backend Lb6Backend Lb4ReverseNat Lb6ReverseNat
        Lb4AffinityKey Lb6AffinityKey LbAffinityVal LbAffinityMatch Lb4SrcRangeKey Lb6SrcRangeKey
        CtKey CtBucket CtPool CtEntry CtDir CtCollect CtRemove CtInsert Ipv4FragId Ipv6FragId FragPorts VerdictRow
        PartyRow PolicyOutline
    ];
    let mut found = layouts(&read("docs/maps.md"));
    // Lists in one line leave padding out.
    for layout in expected.values_mut().chain(found.values_mut()) {
        layout.fields.retain(|(_, name)| !name.starts_with("pad") && name != "unused" && name != "reserved");
    }
    for (name, layout) in &expected {
        assert_eq!(found.get(name), Some(layout), "{name}");
    }
    let unknown: Vec<_> = found.keys().filter(|name| !expected.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "docs/maps.md has structs that the code has not: {unknown:?}");
}

#[test]
fn every_map_is_in_the_map_reference() {
    let page = read("docs/maps.md");
    for entry in catalog() {
        let name = entry.spec.name();
        let both = name.replacen("_lb4_", "_lb{4,6}_", 1).replacen("_lb6_", "_lb{4,6}_", 1);
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}`")) || line.starts_with(&format!("| `{both}`")));
        let row = row.unwrap_or_else(|| panic!("{name} has no row in docs/maps.md"));
        let size = match name {
            "podwire_events" => "1 MiB".to_owned(),
            _ => thousands(entry.spec.max_entries()),
        };
        assert!(row.contains(&format!("| {size} |")), "{name} has {size} entries: {row}");
    }
}

fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[test]
fn every_drop_reason_in_use_is_explained() {
    let mut source = String::new();
    for folder in ["bpf", "bpf/lib"] {
        for entry in fs::read_dir(root().join(folder)).expect("a folder of programs") {
            let path = entry.expect("readable").path();
            if path.is_file() && path.to_string_lossy().ends_with(['c', 'h']) {
                source += &fs::read_to_string(&path).expect("text");
            }
        }
    }
    let declared =
        source.lines().filter_map(|line| line.trim().strip_prefix("REASON_")?.strip_suffix(',')?.split_once(" = "));
    let used: BTreeMap<u8, &str> = declared
        // Once where it is declared, and where it is given.
        .filter(|(name, _)| source.matches(&format!("REASON_{name}")).count() > 1)
        .map(|(name, number)| (number.parse().expect("a number"), name))
        .collect();
    assert!(used.len() > 8, "{used:?}");

    let page = read("docs/life-of-a-packet.md");
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        Some((cells.next()?.parse::<u8>().ok()?, cells.next()?))
    });
    let explained: BTreeMap<u8, &str> = rows.collect();
    assert_eq!(explained.keys().collect::<BTreeSet<_>>(), used.keys().collect::<BTreeSet<_>>(), "{used:?}");
    for (number, text) in explained {
        assert_eq!(DropReason::from_number(number).map(DropReason::text), Some(text));
    }
}

/// scripts/mutations.sh could not make a change whose line has gone.
#[test]
fn wrong_changes_are_of_lines_that_stand_in_the_code() {
    let list = read("tests/mutations.txt");
    let mut lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut names = BTreeSet::new();
    while let Some(name) = lines.next() {
        if let Some(tests) = name.strip_prefix("first: ") {
            let exists = |test: &str| root().join("tests").join(test).with_extension("rs").exists();
            assert!(tests.split(' ').all(exists), "{tests}");
            continue;
        }
        let mut part = |what: &str| lines.next().and_then(|line| line.strip_prefix(what));
        let (Some(file), Some(old), Some(new)) = (part("file: "), part("old: "), part("new: ")) else {
            panic!("{name}: file, old and new are to follow");
        };
        assert!(read(Path::new("bpf").join(file)).contains(old), "{name}: not in bpf/{file}: {old}");
        assert!(old != new && names.insert(name), "{name}: changes nothing, or stands twice");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut followed = 0;
    for page in pages() {
        let text = read(&page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.clone() } else { page.parent().expect("a folder").join(file) };
            assert!(root().join(&path).exists(), "{}: {target} leads nowhere", page.display());
            let headings =
                || read(&path).lines().filter_map(|line| line.strip_prefix('#')).map(slug).collect::<Vec<_>>();
            assert!(anchor.is_empty() || headings().iter().any(|slug| slug == anchor), "{}: {target}", page.display());
            followed += 1;
        }
    }
    assert!(followed > 10, "only {followed} links found");
}

/// A heading as anchors name it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}
