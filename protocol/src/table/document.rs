//! The table of commands as Markdown, for the generated section of `SPEC.md`.

use core::fmt::Write as _;

use super::{
    Answered, Authority, COMMON_REPLIES, Constraint, REPLIES, ROWS, Row, Shape, Slot, State,
};

/// The generated section: an overview, a paragraph for each command, and the replies.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_overview(&mut text);
    for row in ROWS {
        let _ = write_row(&mut text, row);
    }
    let _ = write_replies(&mut text);
    text
}

fn write_overview(text: &mut String) -> core::fmt::Result {
    text.push_str("| Code | Name | Sent by | States | Signed by |\n|---|---|---|---|---|\n");
    for row in ROWS {
        writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            row.code,
            row.name,
            senders(row),
            states(row),
            authority(row.authority)
        )?;
    }
    text.push('\n');
    Ok(())
}

fn write_row(text: &mut String, row: &Row) -> core::fmt::Result {
    writeln!(text, "### {} {}\n", row.code, row.name)?;
    let (first, rest) = row.meaning.split_at_checked(1).unwrap_or(("", row.meaning));
    writeln!(text, "{}{rest}.\n", first.to_uppercase())?;
    writeln!(text, "`{}`\n", syntax(row))?;
    for rule in row.parameters {
        let need = if rule.is_required { "" } else { ", optional" };
        writeln!(text, "- `{}=`: {}{need}", rule.name, rule.kind)?;
    }
    for constraint in row.constraints {
        writeln!(text, "- {}", constraint_text(*constraint))?;
    }
    if !row.parameters.is_empty() || !row.constraints.is_empty() {
        text.push('\n');
    }
    let codes: Vec<String> = row.replies.iter().map(u16::to_string).collect();
    match row.answered {
        Answered::Never => writeln!(text, "Not answered.\n"),
        Answered::Always => writeln!(text, "Answers: {}.\n", codes.join(", ")),
        Answered::IfAsked => writeln!(
            text,
            "Answers: {}; without `H-ID=` only a refusal is answered.\n",
            codes.join(", ")
        ),
    }
}

fn write_replies(text: &mut String) -> core::fmt::Result {
    text.push_str("### Replies\n\n| Reply | Meaning | Parameters |\n|---|---|---|\n");
    for (code, meaning, parameters) in REPLIES {
        writeln!(text, "| {code} | {meaning} | {parameters} |")?;
    }
    let common: Vec<String> = COMMON_REPLIES.iter().map(u16::to_string).collect();
    writeln!(
        text,
        "\nAny command may be answered {}; an unknown one is answered 502.",
        common.join(", ")
    )
}

/// The line in one row, optional parts in brackets.
fn syntax(row: &Row) -> String {
    let mut line = row.code.to_string();
    for (keyword, shape) in [("TO", row.to), ("FROM", row.from)] {
        if shape == Shape::NONE {
            continue;
        }
        let words = format!("{keyword} {}", shape_text(shape));
        let _ = if shape.none { write!(line, " [{words}]") } else { write!(line, " {words}") };
    }
    for rule in row.parameters {
        let name = rule.name;
        let _ =
            if rule.is_required { write!(line, " {name}=") } else { write!(line, " [{name}=]") };
    }
    line.push_str(match (row.body, row.signature) {
        (Slot::Absent, Slot::Absent) => "",
        (Slot::Absent, _) => " - <signature>",
        (Slot::Required, Slot::Absent) => " <body>",
        (Slot::Required, Slot::Optional) => " <body> [<signature>]",
        (Slot::Required, Slot::Required) => " <body> <signature>",
        (Slot::Optional, Slot::Required) => " -/<body> <signature>",
        (Slot::Optional, _) => " [-/<body>] [<signature>]",
    });
    line
}

fn shape_text(shape: Shape) -> String {
    let words = [(shape.account, "account"), (shape.device, "device"), (shape.domain, "domain")];
    let words: Vec<&str> = words.into_iter().filter(|(is_in, _)| *is_in).map(|(_, w)| w).collect();
    words.join("/")
}

const fn senders(row: &Row) -> &'static str {
    match (row.from_client, row.from_relay) {
        (true, true) => "client, relay",
        (true, false) => "client",
        _ => "relay",
    }
}

fn states(row: &Row) -> String {
    if row.states.len() == State::ALL.len() {
        return "any".into();
    }
    let names: Vec<&str> = row.states.iter().map(|state| state.name()).collect();
    names.join(", ")
}

const fn authority(authority: Authority) -> &'static str {
    match authority {
        Authority::None => "–",
        Authority::Proof => "device key (octets of §5)",
        Authority::Device => "device key",
        Authority::SignedSession => "device key in signed sessions",
        Authority::Identity => "identity key",
        Authority::Revoker => "identity, recovery or domain key",
        Authority::Log => "log key",
    }
}

fn constraint_text(constraint: Constraint) -> String {
    match constraint {
        Constraint::OneOf(names) => format!("exactly one of `{}=`", names.join("=`, `")),
        Constraint::Needs(name, other) => format!("`{name}=` only with `{other}=`"),
        Constraint::WithSignature(name) => format!("`{name}=` exactly if there is a signature"),
        Constraint::WithBody(name) => format!("`{name}=` exactly if there is a body"),
    }
}
