//! Order is law (STYLE): the module list of a crate is its import order, every file says what it is, none is too long, and
//! nothing names the machine it was made on. It reads the sources as text and runs nothing of them.

use std::fs;
use std::path::{Path, PathBuf};

const CRATES: &[&str] = &["shared", "patchkit", "agent", "collector", "release", "tests"];
const LONGEST_FILE_LINES: usize = 400;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files under `folder` whose name ends so.
fn files_under(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() && !matches!(name.as_str(), "target" | ".git" | ".demo" | ".tools" | ".bench") {
                folders.push(path);
            } else if path.is_file() && name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<PathBuf> {
    CRATES.iter().flat_map(|name| files_under(&top().join(name), ".rs")).collect()
}

/// The part before a file's own tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text)
}

/// Lines that are code: comments end where they begin.
fn code(text: &str) -> String {
    without_tests(text).lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The modules in the order of their declaration.
fn module_list(root: &str) -> Vec<String> {
    let declared = |line: &str| {
        let line = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
    };
    code(root).lines().filter_map(declared).collect()
}

/// Names that follow `crate::`, also those of a group `crate::{a, b::c}`.
fn named_modules(code: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with('$') || code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        let (mut depth, mut start) = (1, true);
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && start && c.is_alphabetic() {
                names.push(word(&group[i..]));
                start = false;
            }
            start |= depth == 1 && c == ',';
        }
    }
    names
}

/// The crate's modules that this file names though they stand below its own.
fn named_below(order: &[String], own: &str, text: &str) -> Vec<String> {
    let Some(place) = order.iter().position(|m| m == own) else { return Vec::new() };
    named_modules(&code(text))
        .into_iter()
        .filter(|name| order.iter().position(|m| m == name).is_some_and(|p| p > place))
        .collect()
}

#[test]
fn a_module_names_only_what_stands_above_it() {
    let mut wrong = Vec::new();
    for name in CRATES {
        let src = top().join(name).join("src");
        let root = ["lib.rs", "main.rs"].iter().map(|f| src.join(f)).find(|f| f.is_file()).expect("a crate has a root");
        let order = module_list(&fs::read_to_string(root).expect("readable"));
        for file in files_under(&src, ".rs") {
            let inside = file.strip_prefix(&src).expect("under src");
            let first = inside.iter().next().and_then(|p| p.to_str()).expect("a name");
            if file.ends_with("tests.rs") || inside.starts_with("bin") {
                continue;
            }
            let below = named_below(&order, first.trim_end_matches(".rs"), &fs::read_to_string(&file).expect("readable"));
            wrong.extend(below.iter().map(|m| format!("{name}/src/{}: names {m}, which stands below it", inside.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_module_lists_and_paths_sees_what_is_there() {
    let order = module_list("//! x\nmod a;\npub mod b;\npub(crate) mod c;\n#[cfg(test)]\nmod tests;\n");
    assert_eq!(order, ["a", "b", "c"]);
    let table = [
        ("use crate::c::X;", vec!["c"]),
        ("use crate::{a::{self, X}, b,\n c::Y};", vec!["a", "b", "c"]),
        ("fn f() { crate::b::g(); } // crate::c", vec!["b"]),
        ("$crate::c!(); mycrate::c", vec![]),
    ];
    for (text, names) in table {
        assert_eq!(named_modules(&code(text)), names, "{text}");
    }
    assert_eq!(named_below(&order, "b", "use crate::{a, c};"), ["c"]);
}

#[test]
fn every_source_file_says_what_it_is() {
    let silent: Vec<_> =
        sources().into_iter().filter(|f| !fs::read_to_string(f).is_ok_and(|text| text.starts_with("//!"))).collect();
    assert!(silent.is_empty(), "files that do not begin with //!: {silent:?}");
}

#[test]
fn no_source_file_is_too_long() {
    let length = |file: &PathBuf| {
        let text = fs::read_to_string(file).expect("readable");
        without_tests(&text).lines().filter(|line| !line.trim().is_empty()).count()
    };
    let long: Vec<_> = sources().into_iter().map(|f| (length(&f), f)).filter(|(n, _)| *n > LONGEST_FILE_LINES).collect();
    assert!(long.is_empty(), "files over {LONGEST_FILE_LINES} lines without their tests: {long:?}");
}

#[test]
fn no_file_names_the_machine_it_was_made_on_or_a_registry_host() {
    // In halves, so that this file is clean too.
    let forbidden: Vec<String> = [("/wo", "rk/"), ("/fa", "rm/"), (".lib", "rary/"), ("py", "pi.org"), ("npm", "js.")]
        .iter()
        .map(|(a, b)| format!("{a}{b}"))
        .collect();
    let mut wrong = Vec::new();
    for file in files_under(&top(), "") {
        if file.ends_with("Cargo.lock") || file.ends_with(".git") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = forbidden.iter().find(|word| stands_alone(line, word)) {
                wrong.push(format!("{}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether `word` is there as the begin of a path, not as the end of a longer one (`net/work/`).
fn stands_alone(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !word.starts_with('/') || !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '.'))
}
