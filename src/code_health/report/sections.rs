//! The report's sections, from the shortest answer to the method.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::findings::{FILE_CODE_MAX, FUNCTION_DEPTH_MAX, FUNCTION_LINES_MAX, Sort, Tenths};
use super::statistics::Distribution;
use super::text::{Table, code, count, number, percent, quoted, tenths};
use super::{Study, Survey};
use crate::code_health::fingerprint::WINDOW_LINES;
use crate::code_health::functions::Function;
use crate::code_health::marks::{Mark, Word};
use crate::code_health::measure::{File, LINE_CHARS_MAX};
use crate::code_health::tree::{FILE_BYTES_MAX, FILES_MAX, TREE_BYTES_MAX};

/// Rows of the longer and of the shorter lists.
const LONG_LIST_MAX: usize = 25;
const SHORT_LIST_MAX: usize = 12;
/// Copies of one block that are named.
const PLACES_MAX: usize = 6;

/// All sections.
pub(super) fn all(study: &Study<'_>) -> String {
    let name = code(&study.survey.name);
    if study.survey.files.is_empty() && study.survey.missing.is_empty() {
        return format!(
            "# Code health of {name}\n\nThere are no text files to report on.\n\n{}",
            left_out(study.survey)
        );
    }
    let sections = [
        summary(study),
        missing(study.survey),
        where_to_start(study),
        ranking(study),
        languages(study.survey),
        directories(study),
        distribution(study.survey),
        biggest_files(study.survey),
        functions(study.survey, "Longest functions", |function| function.lines),
        functions(study.survey, "Most nested functions", |function| function.depth),
        duplicates(study),
        marks(study.survey),
        method(study.survey),
    ];
    let mut text = format!("# Code health of {name}\n");
    for section in sections.iter().filter(|section| !section.is_empty()) {
        text.push('\n');
        text.push_str(section);
    }
    text
}

fn own(survey: &Survey) -> impl Iterator<Item = &File> {
    survey.files.iter().filter(|file| file.is_own_code())
}

fn sum<'a>(files: impl IntoIterator<Item = &'a File>, value: impl Fn(&File) -> u32) -> u64 {
    files.into_iter().map(|file| u64::from(value(file))).sum()
}

/// Functions with their files; those of tests too, if wanted.
fn all_functions(survey: &Survey, tests: bool) -> impl Iterator<Item = (&File, &Function)> {
    own(survey)
        .flat_map(|file| file.functions.iter().map(move |function| (file, function)))
        .filter(move |(file, function)| tests || !(file.test || function.test))
}

fn summary(study: &Study<'_>) -> String {
    let survey = study.survey;
    let mut text = String::new();
    let files = survey.files.len() as u64;
    let lines = sum(&survey.files, File::lines);
    let own_code = sum(own(survey), |file| file.code);
    let tests = sum(own(survey).filter(|file| file.test), |file| file.code);
    let comments = sum(own(survey), |file| file.comment);
    line(
        &mut text,
        format_args!(
            "{} with {}; {} of program code{}, {} of comments beside it ({} of both).",
            count(files, "text file", "text files"),
            count(lines, "line", "lines"),
            count(own_code, "line", "lines"),
            main_languages(survey, own_code),
            count(comments, "line", "lines"),
            percent(comments, comments + own_code),
        ),
    );
    if tests > 0 {
        line(
            &mut text,
            format_args!(
                "{} of the code stands in files of tests, fixtures or benchmarks.",
                percent(tests, own_code)
            ),
        );
    }
    functions_in_short(&mut text, survey);
    let duplicates = &study.duplicates;
    if !duplicates.blocks.is_empty() {
        line(
            &mut text,
            format_args!(
                "{} of the lines that count stand more than once: {} of {WINDOW_LINES} lines or more.",
                percent(duplicates.duplicated as u64, duplicates.lines as u64),
                count(duplicates.blocks.len() as u64, "block", "blocks"),
            ),
        );
    }
    let marks = survey.files.iter().map(|file| file.marks.len() as u64).sum();
    if marks > 0 {
        line(
            &mut text,
            format_args!("{} left in comments.", count(marks, "note for later is", "notes for later are")),
        );
    }
    let first: Vec<String> =
        study.findings.by_file().iter().take(3).map(|(file, ..)| code(&survey.files[*file].path)).collect();
    if first.is_empty() {
        line(&mut text, format_args!("Nothing stands out."));
    } else {
        line(&mut text, format_args!("First to look at: {}.", first.join(", ")));
    }
    text
}

fn functions_in_short(text: &mut String, survey: &Survey) {
    let lengths: Distribution = all_functions(survey, true).map(|(_, f)| u64::from(f.lines)).collect();
    if lengths.len() == 0 {
        return;
    }
    line(
        text,
        format_args!(
            "{}: half have at most {}, nine in ten at most {}; {} longer than {FUNCTION_LINES_MAX}.",
            count(lengths.len() as u64, "function", "functions"),
            count(lengths.percentile(50), "line", "lines"),
            number(lengths.percentile(90)),
            count(lengths.over(FUNCTION_LINES_MAX.into()) as u64, "is", "are"),
        ),
    );
    let deep = all_functions(survey, true).filter(|(_, f)| f.depth > FUNCTION_DEPTH_MAX).count() as u64;
    if let Some((file, deepest)) =
        all_functions(survey, true).max_by_key(|(file, f)| (f.depth, std::cmp::Reverse((&file.path, f.line))))
        && deep > 0
    {
        line(
            text,
            format_args!(
                "{} deeper than {FUNCTION_DEPTH_MAX} levels, {} in {} the deepest with {}.",
                count(deep, "function nests", "functions nest"),
                code(&deepest.name),
                code(&format!("{}:{}", file.path, deepest.line)),
                deepest.depth,
            ),
        );
    }
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    writeln!(text, "- {words}").expect("a string takes all that is written");
}

/// ` (Rust 80.0 %, Shell 20.0 %)`: the languages that make up most of the code.
fn main_languages(survey: &Survey, own_code: u64) -> String {
    let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
    for file in own(survey) {
        *sizes.entry(&file.language).or_default() += u64::from(file.code);
    }
    let mut sizes: Vec<(&str, u64)> = sizes.into_iter().filter(|(_, code)| *code > 0).collect();
    sizes.sort_by_key(|(name, code)| (std::cmp::Reverse(*code), *name));
    let shares: Vec<String> =
        sizes.iter().take(3).map(|(name, code)| format!("{name} {}", percent(*code, own_code))).collect();
    if shares.is_empty() { String::new() } else { format!(" ({})", shares.join(", ")) }
}

fn missing(survey: &Survey) -> String {
    if survey.missing.is_empty() {
        return String::new();
    }
    let mut text =
        "## Parts that are missing\n\nThese could not be analysed; nothing below speaks of them.\n\n"
            .to_owned();
    for part in &survey.missing {
        let files = count(part.files, "file", "files");
        let (first, last) = (code(&part.first), code(&part.last));
        line(&mut text, format_args!("{} ({files}, {first} to {last}): {}", part.part, quoted(&part.error)));
    }
    text
}

fn where_to_start(study: &Study<'_>) -> String {
    let mut table = Table::new(&["file", ">score", ">code", "because of"]);
    for (file, score, sorts) in study.findings.by_file().into_iter().take(SHORT_LIST_MAX) {
        let file = &study.survey.files[file];
        table.row(&[&code(&file.path), &tenths(score), &number(file.code), &reasons(&sorts)]);
    }
    format!(
        "## Where to start\n\nThe files whose findings weigh most together.\n\n{}",
        table.or("No file has findings.")
    )
}

fn reasons(sorts: &BTreeMap<Sort, u64>) -> String {
    let reason = |(sort, number): (&Sort, &u64)| match sort {
        Sort::Size | Sort::Layout => sort.title(false).to_owned(),
        _ => count(*number, sort.title(false), sort.title(true)),
    };
    sorts.iter().map(reason).collect::<Vec<_>>().join(", ")
}

fn ranking(study: &Study<'_>) -> String {
    let ranked = &study.findings.ranked;
    let mut table = Table::new(&[">score", "where", "what"]);
    for finding in ranked.iter().take(LONG_LIST_MAX) {
        let place = code(&format!("{}:{}", study.survey.files[finding.file].path, finding.line));
        table.row(&[&tenths(finding.score), &place, &finding.what]);
    }
    let shown = ranked.len().min(LONG_LIST_MAX) as u64;
    format!(
        "## Findings\n\nThe first {} of {}.\n\n{}",
        number(shown),
        number(ranked.len()),
        table.or("Nothing to report.")
    )
}

fn languages(survey: &Survey) -> String {
    let mut groups: BTreeMap<&str, Vec<&File>> = BTreeMap::new();
    for file in &survey.files {
        groups.entry(&file.language).or_default().push(file);
    }
    let mut groups: Vec<(&str, Vec<&File>)> = groups.into_iter().collect();
    groups.sort_by_key(|(name, files)| {
        (std::cmp::Reverse(sum(files.iter().copied(), |file| file.code)), *name)
    });
    let mut table = Table::new(&["language", ">files", ">code", ">comments", ">blank", ">functions"]);
    for (name, files) in groups {
        let total = |value: fn(&File) -> u32| number(sum(files.iter().copied(), value));
        let functions: usize = files.iter().map(|file| file.functions.len()).sum();
        table.row(&[
            &name,
            &number(files.len()),
            &total(|file| file.code),
            &total(|file| file.comment),
            &total(|file| file.blank),
            &if functions == 0 { "–".to_owned() } else { number(functions) },
        ]);
    }
    format!("## Languages\n\n{}", table.or("None."))
}

#[derive(Default)]
struct Directory {
    files: usize,
    code: u64,
    tests: u64,
    score: Tenths,
}

/// The directories of the first two levels by the code below them.
fn directories(study: &Study<'_>) -> String {
    let mut groups: BTreeMap<String, Directory> = BTreeMap::new();
    for file in own(study.survey) {
        let group = groups.entry(directory_of(&file.path)).or_default();
        group.files += 1;
        group.code += u64::from(file.code);
        group.tests += if file.test { u64::from(file.code) } else { 0 };
    }
    for (file, score, _) in study.findings.by_file() {
        if let Some(group) = groups.get_mut(&directory_of(&study.survey.files[file].path)) {
            group.score += score;
        }
    }
    if groups.len() < 2 {
        return String::new();
    }
    let mut groups: Vec<(String, Directory)> = groups.into_iter().collect();
    groups.sort_by(|a, b| b.1.code.cmp(&a.1.code).then_with(|| a.0.cmp(&b.0)));
    let mut table = Table::new(&["directory", ">files", ">code", ">of it tests", ">score per 1,000 lines"]);
    for (name, group) in groups.iter().take(LONG_LIST_MAX) {
        let density = (group.score * 1_000).checked_div(group.code).unwrap_or(0);
        let tests = percent(group.tests, group.code);
        table.row(&[&code(name), &number(group.files), &number(group.code), &tests, &tenths(density)]);
    }
    let more = groups.len().saturating_sub(LONG_LIST_MAX) as u64;
    let more = if more > 0 { format!("\n… and {}.\n", count(more, "more", "more")) } else { String::new() };
    format!(
        "## Directories\n\nProgram code by place, and how much the findings there weigh.\n\n{}{more}",
        table.or("None.")
    )
}

fn directory_of(path: &str) -> String {
    let mut levels: Vec<&str> = path.split('/').collect();
    levels.pop();
    levels.truncate(2);
    format!("{}/", if levels.is_empty() { ".".to_owned() } else { levels.join("/") })
}

fn distribution(survey: &Survey) -> String {
    let mut table = Table::new(&["", ">count", ">median", ">90 %", ">99 %", ">greatest"]);
    let mut row = |title: &str, values: Distribution| {
        let at = |per_cent| number(values.percentile(per_cent));
        table.row(&[&title, &number(values.len()), &at(50), &at(90), &at(99), &at(100)]);
    };
    row("lines of code of a file", own(survey).map(|file| u64::from(file.code)).collect());
    row("lines of a function", all_functions(survey, true).map(|(_, f)| u64::from(f.lines)).collect());
    row("… outside tests", all_functions(survey, false).map(|(_, f)| u64::from(f.lines)).collect());
    row("nesting of a function", all_functions(survey, true).map(|(_, f)| u64::from(f.depth)).collect());
    format!("## Distribution\n\n{}", table.or("None."))
}

fn biggest_files(survey: &Survey) -> String {
    let mut files: Vec<&File> = own(survey).collect();
    files.sort_by(|a, b| b.code.cmp(&a.code).then_with(|| a.path.cmp(&b.path)));
    let mut table = Table::new(&["file", "language", ">code", ">comments", ">functions", ">longest"]);
    for file in files.into_iter().take(SHORT_LIST_MAX) {
        let longest = file.functions.iter().map(|function| function.lines).max();
        table.row(&[
            &code(&file.path),
            &file.language,
            &number(file.code),
            &percent(file.comment.into(), u64::from(file.comment) + u64::from(file.code)),
            &number(file.functions.len()),
            &longest.map_or_else(|| "–".to_owned(), number),
        ]);
    }
    format!("## Biggest files\n\n{}", table.or("No program code."))
}

fn functions(survey: &Survey, title: &str, by: impl Fn(&Function) -> u32) -> String {
    let mut found: Vec<(&File, &Function)> =
        all_functions(survey, false).filter(|(_, f)| by(f) > 0).collect();
    found.sort_by(|a, b| {
        by(b.1)
            .cmp(&by(a.1))
            .then_with(|| (&a.0.path, a.1.line, &a.1.name).cmp(&(&b.0.path, b.1.line, &b.1.name)))
    });
    let mut table = Table::new(&["function", "where", ">lines", ">nesting"]);
    for (file, function) in found.into_iter().take(SHORT_LIST_MAX) {
        let place = code(&format!("{}:{}", file.path, function.line));
        table.row(&[&code(&function.name), &place, &number(function.lines), &number(function.depth)]);
    }
    format!("## {title}\n\nOutside tests.\n\n{}", table.or("None."))
}

fn duplicates(study: &Study<'_>) -> String {
    let blocks = &study.duplicates.blocks;
    let mut text = format!(
        "## Duplicated blocks\n\n{} of {} lines that count stand more than once, in {}.\n",
        number(study.duplicates.duplicated),
        number(study.duplicates.lines),
        count(blocks.len() as u64, "block", "blocks"),
    );
    if !blocks.is_empty() {
        text.push_str("Those with the most lines to save:\n\n");
    }
    for block in blocks.iter().take(SHORT_LIST_MAX) {
        let shown = block.places.iter().take(PLACES_MAX);
        let place = |place: &crate::code_health::duplicates::Place| {
            code(&format!("{}:{}-{}", study.survey.files[place.file].path, place.first, place.last))
        };
        let places: Vec<String> = shown.map(place).collect();
        let more = block.places.len().saturating_sub(PLACES_MAX);
        let more = if more > 0 { format!(" and {} more", number(more)) } else { String::new() };
        let (lines, copies) = (number(block.lines), number(block.places.len()));
        line(&mut text, format_args!("**{lines} lines, {copies} times**: {}{more}", places.join(", ")));
    }
    text
}

fn marks(survey: &Survey) -> String {
    let all: Vec<(&File, &Mark)> =
        survey.files.iter().flat_map(|file| file.marks.iter().map(move |mark| (file, mark))).collect();
    if all.is_empty() {
        return String::new();
    }
    let mut text = "## Notes left in comments\n".to_owned();
    for word in Word::ALL {
        let found: Vec<&(&File, &Mark)> = all.iter().filter(|(_, mark)| mark.word == word).collect();
        if found.is_empty() {
            continue;
        }
        let title = format!("\n### {} ({})\n\n", word.as_str(), number(found.len()));
        text.push_str(&title);
        for (file, mark) in found.iter().take(LONG_LIST_MAX) {
            let said = if mark.text.is_empty() { "(no words)".to_owned() } else { quoted(&mark.text) };
            line(&mut text, format_args!("{} {said}", code(&format!("{}:{}", file.path, mark.line))));
        }
        let more = found.len().saturating_sub(LONG_LIST_MAX);
        if more > 0 {
            line(&mut text, format_args!("… and {} more", number(more)));
        }
    }
    text
}

fn method(survey: &Survey) -> String {
    format!(
        "## Method and limits

- **Score.** A function over {FUNCTION_LINES_MAX} lines: 0.1 for each line more; nested deeper than {FUNCTION_DEPTH_MAX}: 3 for each level more.
  A file over {FILE_CODE_MAX} lines of code: 1 for 60 lines more. A duplicated block: 0.25 for each line that one copy less would save.
  FIXME 4, XXX 3, HACK 2, TODO 1. Tabulators mixed with spaces 2, each line over {LINE_CHARS_MAX} characters 0.25 (at most 5 a file), text
  that is not UTF-8 3. Half of it in tests.
- **Functions** are found by keywords, layout and braces, not by a parser: macros and unusual layout can hide one or
  move its end. Nesting counts control blocks and closures; a function inside another counts for both.
- **Duplicates** are equal runs of at least {WINDOW_LINES} lines, comments, spacing, imports, attributes and lines
  without a letter or digit left out. Renamed copies are not found.
- **Generated files** (they say so, or their lines are very long), data and prose are counted but not judged.
- **Left out:** {}
",
        left_out(survey)
    )
}

fn left_out(survey: &Survey) -> String {
    let skipped = &survey.skipped;
    let kib = FILE_BYTES_MAX / 1_024;
    let truncated = if skipped.truncated {
        let mib = TREE_BYTES_MAX / 1_024 / 1_024;
        format!(
            " The tree is larger than the {} files or {mib} MiB that are read; the rest is missing.",
            number(FILES_MAX)
        )
    } else {
        String::new()
    };
    format!(
        "{}, {} over {kib} KiB, {}, {}, and {} of version control, build results or dependencies.{truncated}",
        count(skipped.binary, "binary file", "binary files"),
        count(skipped.large, "file", "files"),
        count(skipped.links, "symbolic link", "symbolic links"),
        count(skipped.unreadable, "unreadable entry", "unreadable entries"),
        count(skipped.directories, "directory", "directories"),
    )
}
