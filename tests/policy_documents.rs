//! Policies as documents: what is read from them, and what is said of those that are refused.

use std::fs;
use std::path::{Path, PathBuf};

use podwire::policy::Policy;
use podwire::{Error, ErrorKind};
use proptest::prelude::*;
use serde_json::{Value, json};

const FIXTURES: [&str; 5] = ["namespaced.yaml", "clusterwide.yaml", "bare.json", "edges.yaml", "list.yaml"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/policy").join(name)
}

fn fixture(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn read(name: &str, text: &str) -> Vec<Policy> {
    let policies = if name.ends_with(".json") { Policy::from_json(text) } else { Policy::from_yaml(text) };
    policies.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Each file reads as the JSON beside it, which is the rules as they are meant: scoped, labelled, spelled out.
#[test]
fn what_is_wrong_is_told_without_repeating_all_of_it() {
    let long = "x".repeat(100_000);
    let texts = [
        format!("{{endpointSelector: {{}}, ingress: [{{}}], {long}: 1}}"),
        format!("{{endpointSelector: {{}}, ingress: [{{}}], description: {long}}}"),
        format!("{{endpointSelector: {{}}, ingress: [{{fromEntities: [{long}]}}]}}"),
        format!("{{endpointSelector: {{matchLabels: {{{long}: a}}}}, ingress: [{{}}]}}"),
        format!("{{endpointSelector: {{matchLabels: {{a: {long}}}}}, ingress: [{{}}]}}"),
        format!("{{endpointSelector: {{}}, ingress: [{{}}], labels: [{{key: {long}/, value: '{long}', source: ''}}]}}"),
        format!("apiVersion: cilium.io/v2\nkind: {long}\nmetadata: {{name: {long}}}\nspec: {{}}"),
        format!("*{long}"),
        format!("!{long} a"),
    ];
    for text in texts {
        let told = Policy::from_yaml(&text).expect_err("refused").to_string();
        assert!(told.len() < 2000, "{} bytes: {}", told.len(), &told[..2000]);
    }
    let described = |bytes| format!("{{endpointSelector: {{}}, ingress: [{{}}], description: {}}}", "x".repeat(bytes));
    let told = Policy::from_yaml(&described(4097)).expect_err("refused").to_string();
    assert!(told.contains("description: ") && told.contains("has 4097 bytes, at most 4096 are allowed"), "{told}");
    let mut rules = Policy::from_yaml(&described(4096)).expect("as long as it may be").remove(0).rules;
    rules[0].description.push('x');
    assert!(rules[0].check().is_err(), "nor may a program's own be");
}

#[test]
fn documents_that_users_write() {
    for name in FIXTURES {
        let policies = read(name, &fixture(name));
        let found: Value = policies.iter().map(|policy| json!({"name": policy.name, "rules": policy.rules})).collect();
        let expected = path(name).with_extension("expected.json");
        if std::env::var_os("PODWIRE_WRITE_EXPECTED").is_some() {
            let text = serde_json::to_string_pretty(&found).expect("JSON") + "\n";
            fs::write(&expected, text).expect("writable");
        }
        let expected: Value = serde_json::from_str(&fs::read_to_string(&expected).expect("text")).expect("JSON");
        assert_eq!(found, expected, "{name}: {found:#}");
    }
}

/// What `to_json` writes reads as the same rules again, by either reader.
#[test]
fn rules_survive_writing_and_reading() {
    for name in FIXTURES {
        for policy in read(name, &fixture(name)) {
            policy.check().unwrap_or_else(|error| panic!("{name}: {error}"));
            let text = serde_json::to_string(&policy.rules).expect("JSON");
            let again = Policy::from_json(&text).unwrap_or_else(|error| panic!("{name}: {text}: {error}"));
            assert_eq!(serde_json::to_string(&again[0].rules).expect("JSON"), text, "{name}");
            assert_eq!(Policy::from_yaml(&text).expect("JSON is YAML"), again, "{name}");
            assert_eq!((again.len(), again[0].name.as_str()), (1, ""));
        }
    }
}

/// The examples of docs/policy.md are valid, and its tables have every field that is refused by name.
#[test]
fn the_page_is_true() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy.md")).expect("the page");
    let examples: Vec<_> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        read("docs/policy.yaml", example);
    }
    let places = [
        ("", "rule"),
        ("ingress", "section"),
        ("egress", "section"),
        ("toCIDRSet", "`fromCIDRSet`, `toCIDRSet`"),
        ("toPorts", "`toPorts`"),
    ];
    for (place, row) in places {
        let row = page
            .split("## Refusals")
            .nth(1)
            .expect("the chapter")
            .lines()
            .find(|line| line.starts_with(&format!("| {row} |")));
        for field in row.unwrap_or_else(|| panic!("no row for {place}")).split('`').skip(1).step_by(2) {
            if field == "toPorts" || field.ends_with("CIDRSet") || field.chars().all(char::is_uppercase) {
                continue;
            }
            let section = |inner: String| json!({"endpointSelector": {}, "egress": [serde_json::from_str::<Value>(&inner).expect("JSON")]});
            let document = match place {
                "" => json!({"endpointSelector": {}, "ingress": [{}], field: {}}),
                "ingress" if field.starts_with("to") => continue,
                "egress" if field.starts_with("from") => continue,
                "ingress" => json!({"endpointSelector": {}, "ingress": [{field: []}]}),
                "egress" => json!({"endpointSelector": {}, "egress": [{field: []}]}),
                "toCIDRSet" => section(format!(r#"{{"toCIDRSet": [{{"cidr": "::/0", "{field}": {{}}}}]}}"#)),
                _ => section(format!(r#"{{"toPorts": [{{"ports": [{{"port": "1"}}], "{field}": {{}}}}]}}"#)),
            };
            let problems = problems(&document.to_string());
            assert_eq!(problems.len(), 1, "{document}: {problems:?}");
            assert!(problems[0].ends_with("known to Cilium but not enforced by podwire"), "{document}: {problems:?}");
        }
    }
}

fn problems(text: &str) -> Vec<String> {
    let error = Policy::from_yaml(text).expect_err(text);
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let Error::InvalidDocument { problems, .. } = &error else { panic!("{text}: {error}") };
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(error.to_string(), format!("policy refused, nothing of it was applied:\n  {}", lines.join("\n  ")));
    lines
}

/// `tests/fixtures/policy/refused.txt`: documents, and under each, after `=>`, what is said of it, line by line.
#[test]
fn documents_that_are_refused() {
    let mut cases = 0;
    for case in fixture("refused.txt").split("\n\n").map(str::trim).filter(|case| !case.starts_with('#')) {
        let (text, expected) = case.split_once("\n=> ").unwrap_or_else(|| panic!("no answer: {case}"));
        let expected: Vec<_> = expected.split("\n=> ").collect();
        assert_eq!(problems(text), expected, "{text}");
        cases += 1;
    }
    assert!(cases > 30, "only {cases} cases were found");
}

/// JSON is read by another parser; what it finds wrong by itself is said likewise.
#[test]
fn malformed_json_is_refused() {
    let cases = [
        ("", "EOF while parsing a value at line 1 column 0"),
        (r#"{"endpointSelector": {}"#, "EOF while parsing an object at line 1 column 23"),
        (
            r#"{"endpointSelector": {}, "egress": [{}], "egress": [1]}"#,
            "egress: [1]: a field of this name was there already",
        ),
        ("[1] 2", "trailing characters at line 1 column 5"),
        ("[]", "has no policy and no rule"),
        ("\"text\"", "\"text\": not an object"),
        ("[[{}]]", "[0]: [{}]: not an object"),
    ];
    for (text, expected) in cases {
        let error = Policy::from_json(text).expect_err(text);
        assert_eq!(error.to_string(), format!("policy refused, nothing of it was applied:\n  {expected}"));
    }
}

/// One document that is wrong takes the others with it.
#[test]
fn nothing_of_a_refused_text_is_returned() {
    let good = fixture("namespaced.yaml");
    assert!(Policy::from_yaml(&good).is_ok());
    let lines = problems(&format!("{good}\n---\n{{endpointSelector: {{}}, ingress: [{{toFQDNs: []}}]}}"));
    let allowed = "fromEndpoints, fromEntities, fromCIDR, fromCIDRSet, toPorts, icmps";
    assert_eq!(lines, [format!("document 3: ingress[0].toFQDNs: []: unknown field; allowed are {allowed}")]);
}

#[test]
fn the_enormous_is_refused() {
    let rule = "{\"endpointSelector\":{},\"ingress\":[{}]}";
    let cases = [
        (" ".repeat((16 << 20) + 1), "has 16777217 bytes, at most 16777216 are allowed"),
        ("[".repeat(1000), "recursion limit exceeded at line 1 column 128"),
        (format!("[{}0]", "0,".repeat(65_536)), "has 65537 items, at most 65536 are allowed"),
    ];
    for (text, expected) in cases {
        let error = Policy::from_json(&text).expect_err("too large").to_string();
        assert!(error.ends_with(expected), "{error}");
    }
    // several lists in one text, each short enough
    let object = |name: &str| {
        let specs = format!("[{}{rule}]", format!("{rule},").repeat(32_768));
        format!(r#"{{"kind":"CiliumNetworkPolicy","metadata":{{"name":"{name}"}},"specs":{specs}}}"#)
    };
    let error = Policy::from_json(&format!("[{},{}]", object("a"), object("b"))).expect_err("too many").to_string();
    assert!(error.ends_with("  [1]: more than 65536 rules"), "{error}");

    // nesting, aliases of aliases, many problems
    let deep = format!("endpointSelector: {}{}", "{a: ".repeat(100), "}".repeat(100));
    assert!(problems(&deep)[0].contains("budget breached: Depth"), "{:?}", problems(&deep));
    let bomb: String = (1..40).map(|n| format!("a{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1)).collect();
    let bomb = problems(&format!("a0: &a0 [x, x]\n{bomb}"));
    assert!(bomb.len() == 1 && bomb[0].contains("budget breached"), "{bomb:?}");
    let wrong = format!("[{}{{}}]", "{},".repeat(99));
    let wrong = problems(&wrong);
    assert_eq!((wrong.len(), wrong[50].as_str()), (51, "and 150 problems more"));
}

/// Values that an error shows are cut off, at a character's boundary.
#[test]
fn long_values_are_shown_in_part() {
    let text = format!("{{endpointSelector: {{}}, ingress: [{{fromEntities: [{}]}}]}}", "ü".repeat(100));
    let shown = format!("\"{}…", "ü".repeat(39));
    assert!(problems(&text)[0].starts_with(&format!("ingress[0].fromEntities[0]: {shown}: not one of all")));
}

/// Documents whose fields are those of policies, at places where they may or may not be, with values of every kind.
fn documents() -> impl Strategy<Value = Value> {
    const FIELDS: [&str; 45] = [
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "namespace",
        "uid",
        "spec",
        "specs",
        "items",
        "status",
        "endpointSelector",
        "matchLabels",
        "matchExpressions",
        "key",
        "operator",
        "values",
        "ingress",
        "egress",
        "ingressDeny",
        "egressDeny",
        "enableDefaultDeny",
        "labels",
        "description",
        "fromEndpoints",
        "toEndpoints",
        "fromEntities",
        "toEntities",
        "fromCIDR",
        "toCIDR",
        "fromCIDRSet",
        "toCIDRSet",
        "cidr",
        "except",
        "toPorts",
        "ports",
        "port",
        "endPort",
        "protocol",
        "icmps",
        "fields",
        "family",
        "type",
        "toFQDNs",
        "rules",
        "k8s:app",
    ];
    const TEXTS: [&str; 24] = [
        "CiliumNetworkPolicy",
        "CiliumClusterwideNetworkPolicy",
        "List",
        "cilium.io/v2",
        "web",
        "any:app",
        "reserved:all",
        "In",
        "Exists",
        "a b",
        "",
        "host",
        "all",
        "10.0.0.1/8",
        "::/0",
        "1.2.3.4/33",
        "80",
        "http",
        "TCP",
        "icmp",
        "IPv6",
        "EchoRequest",
        "k8s:io.kubernetes.pod.namespace",
        "\u{0}ü",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![-2i64..70000, any::<i64>()].prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(&TEXTS[..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 60, 4, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            2 => prop::collection::btree_map(prop::sample::select(&FIELDS[..]), inner, 0..5)
                .prop_map(|map| map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

/// What every text gets: policies that are valid, or problems.
fn answered(answer: Result<Vec<Policy>, Error>) {
    match answer {
        Ok(policies) => {
            assert!(!policies.is_empty());
            policies.iter().for_each(|policy| policy.check().expect("what was read is valid"));
        }
        Err(Error::InvalidDocument { problems, .. }) => assert!(!problems.is_empty()),
        Err(other) => panic!("{other}"),
    }
}

proptest! {
    #[test]
    fn any_structure_is_answered(document in documents()) {
        answered(Policy::from_json(&document.to_string()));
        answered(Policy::from_yaml(&document.to_string()));
    }

    /// Fixtures, a few values of which are replaced by something else.
    #[test]
    fn damaged_documents_are_answered(
        name in prop::sample::select(&FIXTURES[..]),
        places in prop::collection::vec((any::<prop::sample::Index>(), documents()), 1..4),
    ) {
        let policies = read(name, &fixture(name));
        let mut document = serde_json::to_value(&policies[0].rules).expect("JSON");
        for (place, value) in places {
            let pointers = pointers(&document, String::new());
            *document.pointer_mut(place.get::<String>(&pointers)).expect("listed") = value;
        }
        answered(Policy::from_json(&document.to_string()));
    }

    /// Fixtures with pieces cut out, repeated or overwritten.
    #[test]
    fn damaged_texts_are_answered(
        name in prop::sample::select(&FIXTURES[..]),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..20, "\\PC{0,6}|[\\[\\]{}:,&*!|>\\-\n \t\"']{0,3}"), 1..6),
    ) {
        let mut text: Vec<char> = fixture(name).chars().collect();
        for (place, length, put) in cuts {
            let from = place.index(text.len() + 1);
            let to = (from + length).min(text.len());
            text.splice(from..to, put.chars());
        }
        let text: String = text.into_iter().collect();
        answered(Policy::from_yaml(&text));
        answered(Policy::from_json(&text));
    }
}

/// The place of every value of a document.
fn pointers(value: &Value, at: String) -> Vec<String> {
    let inner: Vec<_> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
        Value::Object(map) => {
            map.iter().map(|(name, item)| (name.replace('~', "~0").replace('/', "~1"), item)).collect()
        }
        _ => Vec::new(),
    };
    let inner = inner.into_iter().flat_map(|(step, item)| pointers(item, format!("{at}/{step}")));
    inner.chain([at.clone()]).collect()
}
