//! What README, guides and all other prose may say: listed words, links, names of files and
//! tests, quoted log messages.

use super::*;

/// Red with a link to a missing file, and if a guide is left out.
#[test]
fn readme_links_to_existing_files_and_every_guide() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let links = readme
        .match_indices("](")
        .map(|(at, _)| readme[at + 2..].split(')').next().unwrap());
    let files: Vec<_> = links.filter(|link| !link.contains(':')).collect();
    for file in &files {
        assert!(root.join(file).is_file(), "README links to {file}");
    }
    let mut guides = 0;
    for entry in fs::read_dir(root.join("src/guide")).unwrap() {
        let guide = format!("src/guide/{}", entry.unwrap().file_name().to_str().unwrap());
        assert!(files.contains(&guide.as_str()), "README lacks {guide}");
        guides += 1;
    }
    assert!(guides >= 6, "{guides} guides");
}

/// Text that readers of the project see: code, comments and strings included.
const PROSE: [&str; 12] = [
    "src",
    "tests",
    "examples",
    "benches",
    ".github",
    ".cargo",
    ".ci/run",
    "tests/run",
    "benches/instructions",
    "README.md",
    "CHANGELOG.md",
    "Cargo.toml",
];

/// Correct uses of a listed word: the end of a path, and the phrase around the word.
const ALLOWED: [(&str, &str); 3] = [
    // This list.
    ("tests/api/architecture/prose.rs", "unsettled"),
    // The name of a table in the file: its format.
    ("src/store/file/tables.rs", "unsettled  NAMESPACE"),
    ("src/store/file/tables.rs", "new(\"unsettled\")"),
];

/// The words of a text, each with its line. A name in code is several words. Punctuation
/// counts as a word, so that no phrase runs across it. The characters that mark a comment or
/// continue a string do not count.
fn words(text: &str) -> Vec<(usize, String)> {
    let mut words: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim().trim_start_matches(['/', '!', '#', '-', '>']);
        let (mut joins, mut small) = (false, false);
        for c in line.trim_end_matches('\\').chars() {
            let part = c.is_alphanumeric();
            let begins = c.is_uppercase() && small;
            let lower = c.to_lowercase();
            match words.last_mut() {
                Some((_, word)) if part && joins && !begins => word.extend(lower),
                _ if c.is_whitespace() || c == '_' => {}
                _ => words.push((number + 1, lower.collect())),
            }
            // A genitive is two words: without its `'s` it is a listed word, or none.
            joins = part || c == '\'';
            small = c.is_lowercase();
        }
    }
    words
}

/// The phrases found in a text, each with its line.
fn listed(text: &str, phrases: &[String]) -> Vec<(usize, String)> {
    let phrases = phrases.iter().map(|phrase| words(phrase));
    let phrases: Vec<Vec<_>> = phrases
        .map(|phrase| phrase.into_iter().map(|(_, word)| word).collect())
        .collect();
    let text = words(text);
    let mut found = Vec::new();
    for (at, (line, word)) in text.iter().enumerate() {
        for phrase in phrases.iter().filter(|phrase| phrase[0] == *word) {
            let here = text[at..].iter().map(|(_, word)| word);
            if here.take(phrase.len()).eq(phrase) {
                found.push((*line, phrase.join(" ")));
            }
        }
    }
    found
}

/// `tests/support/words.txt`, without its comments.
fn word_list() -> Vec<String> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/words.txt");
    let list = fs::read_to_string(list).unwrap();
    let words = list.lines().map(str::trim);
    let words = words.filter(|line| !line.is_empty() && !line.starts_with('#'));
    words.map(str::to_owned).collect()
}

#[test]
fn prose_has_no_listed_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for place in PROSE {
        let place = root.join(place);
        if place.is_dir() {
            walk_for(
                &["rs", "md", "lua", "toml", "txt", "yml", "html", "js", "css"],
                &place,
                &mut files,
            );
        } else {
            files.push(place);
        }
    }
    assert!(files.len() > 200, "only {} files", files.len());
    files.retain(|file| !file.ends_with("support/words.txt"));
    let list = word_list();
    let mut wrong = Vec::new();
    for file in files {
        let mut text = fs::read_to_string(&file).unwrap();
        for (_, phrase) in ALLOWED.iter().filter(|(end, _)| file.ends_with(end)) {
            text = text.replace(phrase, "");
        }
        let path = file.strip_prefix(root).unwrap().display();
        let found = listed(&text, &list).into_iter();
        wrong.extend(found.map(|(line, word)| format!("{path}:{line}: {word}")));
    }
    assert!(
        wrong.is_empty(),
        "{}\n{} found",
        wrong.join("\n"),
        wrong.len()
    );
}

#[test]
fn each_listed_word_is_found_with_its_line() {
    let list = word_list();
    assert!(list.len() > 50, "{} words", list.len());
    for word in &list {
        let (first, rest) = word.split_once(' ').unwrap_or((word, ""));
        let text = format!(
            "/// The key.\n//! It `{first}\n    /// {}`'s.",
            rest.to_uppercase()
        );
        let text = if rest.is_empty() {
            text
        } else {
            text.replace('`', "")
        };
        assert!(
            listed(&text, &list).contains(&(2, word.replace('\'', " '"))),
            "{word}"
        );
    }
    assert_eq!(listed("whole any, more wholly is. To be", &list), []);
    for word in list
        .iter()
        .filter(|word| word.chars().all(char::is_alphabetic))
    {
        let capital = word[..1].to_uppercase() + &word[1..];
        for name in [
            format!("is_{word}"),
            format!("is{capital}"),
            word.to_uppercase() + "_BY",
        ] {
            assert_eq!(listed(&name, &list), [(1, word.clone())], "{name}");
        }
    }
}

/// The pages outside of rustdoc's comments: path and text.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for folder in ["src/guide", ".github", "examples", "benches"] {
        walk_for(&["md"], &root.join(folder), &mut files);
    }
    let name = |file: &Path| file.strip_prefix(root).unwrap().display().to_string();
    files
        .iter()
        .map(|file| (name(file), fs::read_to_string(file).unwrap()))
        .collect()
}

/// Red with a file or a test binary that moved.
#[test]
fn pages_name_files_and_test_binaries_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (page, text) in pages() {
        for span in text.split('`').skip(1).step_by(2) {
            let folders = ["src/", "tests/", "benches/", "examples/", ".ci/", ".cargo/"];
            if folders.iter().any(|folder| span.starts_with(folder)) && !span.contains(' ') {
                seen += 1;
                let file = span.split('*').next().unwrap();
                if !root.join(file).exists() {
                    wrong.push(format!("{page}: {span}"));
                }
            }
        }
        for binary in after("--test ", &text) {
            seen += 1;
            if !root.join(format!("tests/{binary}.rs")).is_file() {
                wrong.push(format!("{page}: --test {binary}"));
            }
        }
    }
    assert!(seen > 50, "only {seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Red with a log message that was reworded.
#[test]
fn operating_quotes_log_messages_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("src/guide/operating.md")).unwrap();
    let mut files = Vec::new();
    walk(&root.join("src"), &mut files);
    let sources: Vec<_> = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let before = ["warning `", "log: `", "log says `"];
    let quoted = before.iter().flat_map(|before| page.split(before).skip(1));
    let quoted: Vec<_> = quoted.map(|rest| rest.split('`').next().unwrap()).collect();
    assert!(quoted.len() >= 5, "{quoted:?}");
    for message in quoted {
        let begins = format!("\"{message}");
        let exists = sources.iter().any(|source| source.contains(&begins));
        assert!(exists, "no log message begins with: {message}");
    }
}

/// Red with a module that the table leaves out or has in another place.
#[test]
fn contributing_lists_the_modules_in_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("src/guide/contributing.md")).unwrap();
    let table = page.split("| module |").nth(1).unwrap();
    let table = table.split("\n\n").next().unwrap();
    let cells = table
        .lines()
        .skip(2)
        .map(|row| row.split('|').nth(1).unwrap());
    let modules: Vec<_> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert_eq!(modules, ORDER[..ORDER.len() - 1]);
}

/// Red with an answer of 150 words or more.
#[test]
fn design_answers_in_less_than_150_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let design = fs::read_to_string(root.join("src/guide/design.md")).unwrap();
    let answers: Vec<_> = design.split("\n### ").skip(1).collect();
    assert!(answers.len() > 25, "{} answers", answers.len());
    for answer in answers {
        let (question, answer) = answer.split_once('\n').unwrap();
        let answer = answer.split("\n## ").next().unwrap();
        let is_word = |word: &&str| word.contains(char::is_alphanumeric);
        let words = answer.split_whitespace().filter(is_word).count();
        assert!(words < 150, "{question} {words} words");
        assert!(question.ends_with('?'), "{question}");
    }
}
