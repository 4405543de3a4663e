use super::*;

#[test]
fn what_was_found_is_said_in_words_if_it_is_not_good() {
    let second = Duration::from_secs(1);
    let timed_out = || Failed::TimedOut(second);
    let cases = [
        (
            of_command((CheckEnd::Exited(0), "fine\n".into()), second),
            "",
        ),
        (
            of_command((CheckEnd::Exited(2), " not\nready \n".into()), second),
            "the command exited with code 2: not\nready",
        ),
        (
            of_command((CheckEnd::TimedOut, String::new()), second),
            "the command did not end within 1s",
        ),
        (of_http(Ok(399)), ""),
        (of_http(Ok(400)), "the answer was 400"),
        (of_http(Err(timed_out())), "no answer within 1s"),
        (of_grpc(Ok(true), "a"), ""),
        (of_grpc(Ok(false), ""), "the server does not serve"),
        (of_tcp(Err(Failed::Because("no".into()))), "no"),
    ];
    for (found, message) in cases {
        assert_eq!(found.message, message);
        assert_eq!(found.status.is_passed(), message.is_empty(), "{found:?}");
    }
}

#[test]
fn what_came_to_no_result_is_told_apart_from_a_refusal() {
    let limit = Duration::from_secs(1);
    let status = |found: Found| match found.status {
        CheckStatus::Tcp { succeeded } => succeeded,
        other => panic!("{other:?}"),
    };
    assert_eq!(status(of_tcp(Err(Failed::TimedOut(limit)))), None);
    let refused = Failed::Because("refused".into());
    assert_eq!(status(of_tcp(Err(refused))), Some(false));
}

#[test]
fn words_of_a_task_are_cut_between_characters() {
    let message = "ä".repeat(MESSAGE_BYTES_MAX);
    let status = CheckStatus::Tcp { succeeded: None };
    let found = bounded(Found { status, message });
    assert_eq!(found.message.len(), MESSAGE_BYTES_MAX);
    assert!(found.message.chars().all(|it| it == 'ä'));
}
