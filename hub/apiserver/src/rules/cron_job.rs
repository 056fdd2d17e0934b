//! CronJobs: defaults, and what a schedule may be (the five fields of cron, or `@daily`).

use serde_json::{Value, json};

use super::pod;
use crate::field::FieldError;

/// A field of a schedule: its least and greatest number, and names that stand for numbers.
type Field = (u32, u32, &'static [&'static str]);

const FIELDS: [Field; 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

const WORDS: [&str; 7] =
    ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

pub(super) fn default(cron_job: &mut Value) {
    let Some(spec) = cron_job.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    let defaults = [
        ("concurrencyPolicy", json!("Allow")),
        ("suspend", json!(false)),
        ("successfulJobsHistoryLimit", json!(3)),
        ("failedJobsHistoryLimit", json!(1)),
    ];
    for (field, value) in defaults {
        if spec.get(field).is_none_or(Value::is_null) {
            spec[field] = value;
        }
    }
    pod::default_spec(&mut spec["jobTemplate"]["spec"]["template"]["spec"]);
}

pub(super) fn validate(cron_job: &Value) -> Vec<FieldError> {
    let schedule = &cron_job["spec"]["schedule"];
    match schedule.as_str().unwrap_or_default() {
        // The schema asks for one.
        "" => Vec::new(),
        text => {
            let wrong = check(text).err();
            wrong
                .map(|why| FieldError::invalid("spec.schedule", schedule, &why))
                .into_iter()
                .collect()
        }
    }
}

/// What is wrong with a schedule, in the words of the parser that Kubernetes uses.
fn check(schedule: &str) -> Result<(), String> {
    if schedule.starts_with('@') {
        return match WORDS.contains(&schedule) || schedule.starts_with("@every ") {
            true => Ok(()),
            false => Err(format!("unrecognized descriptor: {schedule}")),
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly {} fields, found {}: [{}]",
            FIELDS.len(),
            fields.len(),
            fields.join(" ")
        ));
    }
    let parts = fields
        .iter()
        .zip(FIELDS)
        .flat_map(|(text, field)| text.split(',').map(move |part| check_part(part, field)));
    parts.collect()
}

/// `*`, `5`, `1-5`, each also with `/2`.
fn check_part(part: &str, field: Field) -> Result<(), String> {
    let (least, greatest, _) = field;
    let (range, step) =
        part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    if let Some(step) = step
        && number(step, (0, 0, &[]))? == 0
    {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if ["*", "?"].contains(&range) {
        return Ok(());
    }
    let (start, end) = match range.split_once('-') {
        Some((start, end)) => (number(start, field)?, number(end, field)?),
        None => {
            let start = number(range, field)?;
            (start, if step.is_some() { greatest } else { start })
        }
    };
    match () {
        () if start < least => {
            Err(format!("beginning of range ({start}) below minimum ({least}): {part}"))
        }
        () if end > greatest => {
            Err(format!("end of range ({end}) above maximum ({greatest}): {part}"))
        }
        () if start > end => {
            Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"))
        }
        () => Ok(()),
    }
}

fn number(text: &str, (least, _, names): Field) -> Result<u32, String> {
    if let Some(at) = names.iter().position(|name| *name == text.to_lowercase()) {
        return Ok(least + at as u32);
    }
    text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_those_of_cron() {
        for good in [
            "* * * * *",
            "*/5 0-6 1,15 * mon-fri",
            "5 4 * JAN sun",
            "@daily",
            "@every 1h",
            "0/15 ? * * *",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-2 * * * *", "beginning of range (5) beyond end of range (2): 5-2"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(check(bad), Err(why.to_owned()));
        }
    }
}
