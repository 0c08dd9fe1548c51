from espalier_client.sse import ServerEvent, read_events


def test_events_carry_type_id_and_all_their_lines() -> None:
    lines = [": heartbeat", "", "id: 4", "event: message", "data: one", "data: two", "", "data:three", ""]
    assert list(read_events(lines)) == [ServerEvent("message", "4", "one\ntwo"), ServerEvent("message", "4", "three")]


def test_an_event_that_was_cut_off_is_left_out() -> None:
    assert list(read_events(["data: half"])) == []
