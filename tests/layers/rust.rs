//! As much of Rust's grammar as it takes to see which paths a file names.

use std::collections::{BTreeMap, BTreeSet};

/// A name that follows `crate::`, or as many `super::` as lead to the crate's root.
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) line: usize,
}

/// All of them, in a file that lies `depth` modules below the crate's root.
pub(crate) fn references(source: &str, depth: usize) -> Vec<Reference> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    // for every open brace whether it is a module's
    let mut braces = Vec::new();
    for (at, (_, token)) in tokens.iter().enumerate() {
        let before = |back: usize| at.checked_sub(back).map_or("", |at| tokens[at].1.as_str());
        match token.as_str() {
            "{" => braces.push(before(2) == "mod"),
            "}" => drop(braces.pop()),
            "crate" => names_after(&tokens, at + 1, &mut found),
            "super" if before(1) != "::" || before(2) == "self" => {
                let inside = depth + braces.iter().filter(|module| **module).count();
                let mut end = at + 1;
                let mut steps = 1;
                while token_at(&tokens, end) == "::" && token_at(&tokens, end + 1) == "super" {
                    (end, steps) = (end + 2, steps + 1);
                }
                if steps == inside {
                    names_after(&tokens, end, &mut found);
                }
            }
            _ => {}
        }
    }
    found
}

/// The modules that the crate's root declares.
pub(crate) fn modules(source: &str) -> BTreeSet<String> {
    let tokens = tokens(source);
    let names = tokens.windows(3).filter(|window| window[0].1 == "mod" && window[2].1 == ";");
    names.map(|window| window[1].1.clone()).collect()
}

/// What the crate's root re-exports, by name, and from which module.
pub(crate) fn reexports(source: &str) -> BTreeMap<String, String> {
    let tokens = tokens(source);
    let mut names = BTreeMap::new();
    for at in (0..tokens.len()).filter(|at| tokens[*at].1 == "use") {
        let module = token_at(&tokens, at + 1);
        let mut list = Vec::new();
        names_after(&tokens, at + 2, &mut list);
        names.extend(list.into_iter().map(|reference| (reference.name, module.to_owned())));
    }
    names
}

/// The source without its comments, and without what is between quotes; lines stay lines.
pub(crate) fn without_text(source: &str) -> String {
    let mut rest = source;
    let mut out = String::with_capacity(source.len());
    while let Some(letter) = rest.chars().next() {
        let skipped =
            comment(rest).or_else(|| raw_string(rest, &out)).or_else(|| string(rest)).or_else(|| character(rest));
        let length = skipped.unwrap_or(letter.len_utf8());
        if skipped.is_some() {
            out.push(' ');
            out.extend(rest[..length].chars().filter(|letter| *letter == '\n'));
        } else {
            out.push(letter);
        }
        rest = &rest[length..];
    }
    out
}

fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

fn raw_string(text: &str, before: &str) -> Option<usize> {
    let in_name = before.chars().next_back().is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| text.starts_with(prefix)).filter(|_| !in_name)?;
    let after = &text[prefix.len()..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    let content = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = text.len() - content.len();
    Some(content.find(&end).map_or(text.len(), |at| begin + at + end.len()))
}

fn string(text: &str) -> Option<usize> {
    let content = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, letter) in content.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 2),
            _ => {}
        }
    }
    Some(text.len())
}

/// A character, as opposed to a lifetime.
fn character(text: &str) -> Option<usize> {
    let content = text.strip_prefix('\'')?;
    let first = content.chars().next()?;
    if first == '\\' {
        let end = content[2..].find('\'')?;
        return Some(1 + 2 + end + 1);
    }
    content[first.len_utf8()..].starts_with('\'').then(|| 1 + first.len_utf8() + 1)
}

fn tokens(source: &str) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (number, line) in without_text(source).lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let name = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
            let length = match name {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                name => name,
            };
            tokens.push((number + 1, rest[..length].to_owned()));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

fn token_at(tokens: &[(usize, String)], at: usize) -> &str {
    tokens.get(at).map_or("", |(_, token)| token)
}

/// The names behind the `::` at `at`: one, or those in the outermost pair of braces.
fn names_after(tokens: &[(usize, String)], at: usize, found: &mut Vec<Reference>) {
    if token_at(tokens, at) != "::" {
        return;
    }
    let mut push = |at: usize| {
        if let Some((line, name)) = tokens.get(at) {
            found.push(Reference { name: name.clone(), line: *line });
        }
    };
    if token_at(tokens, at + 1) != "{" {
        return push(at + 1);
    }
    let mut depth = 0;
    for end in at + 1..tokens.len() {
        match token_at(tokens, end) {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ if depth == 1 && matches!(token_at(tokens, end - 1), "{" | ",") => push(end),
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}
