"""PyPI `pusher` publishes, PyPI `pysher` listens: an application in Python, unchanged.

Run with `python -m unittest python_clients` in this directory.
"""

import json
import logging
import queue
import unittest

import pusher
import pysher

from server import APP_ID, KEY, SECRET, Server

PATIENCE_S = 20


class Listener:
    """A connected pysher client; `events` is a queue of (channel, event, data as it came).

    pysher sends a subscription before it knows the channel itself, so the answer may come before anything can be bound:
    answers are taken from its connection, before they are dispatched.
    """

    def __init__(self, port, member=None):
        self.events = queue.Queue()
        self.answers = queue.Queue()
        self.connected = queue.Queue()
        self.client = pysher.Pusher(KEY, secret=SECRET, secure=False, custom_host="127.0.0.1", port=port, log_level=logging.CRITICAL, user_data=member)
        self.client.connection.bind("pusher:connection_established", self.connected.put)
        dispatch = self.client.connection.event_handler

        def handle(event, data, channel):
            if event.startswith("pusher"):
                self.answers.put((channel, event, data))
            dispatch(event, data, channel)

        self.client.connection.event_handler = handle
        self.client.connect()
        take(self.connected, "pusher:connection_established")

    @property
    def socket_id(self):
        return self.client.connection.socket_id

    def subscribe(self, name, *events, auth=None):
        channel = self.client.subscribe(name, auth)
        answer = take(self.answers, f"an answer to subscribing to {name}")
        assert answer[:2] == (name, "pusher_internal:subscription_succeeded"), answer
        self.acknowledged = json.loads(answer[2])
        for event in events:
            channel.bind(event, lambda data, event=event: self.events.put((name, event, data)))
        return channel

    def next(self):
        return take(self.events, "an event")

    def close(self):
        # pysher's thread may wait in select for its own socket's end for minutes; it is a daemon and is left to that.
        self.client.disconnect(timeout=0)


def take(source, what):
    try:
        return source.get(timeout=PATIENCE_S)
    except queue.Empty:
        raise AssertionError(f"waited {PATIENCE_S} s for {what}") from None


class PythonClients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server("--shards", "2"))
        cls.back = pusher.Pusher(app_id=APP_ID, key=KEY, secret=SECRET, host="127.0.0.1", port=cls.server.port, ssl=False, timeout=PATIENCE_S)

    def listener(self, member=None):
        listener = Listener(self.server.port, member)
        self.addCleanup(listener.close)
        return listener

    def test_the_clients_protocol_is_one_that_is_served(self):
        self.assertEqual(pysher.Pusher.protocol, 6)
        self.assertRegex(self.listener().socket_id, r"\A\d+\.\d+\Z")

    def test_trigger_reaches_a_public_channel(self):
        listener = self.listener()
        listener.subscribe("py-room", "hello")
        self.assertEqual(self.back.trigger("py-room", "hello", {"text": "Grüße 🚀", "n": 1}), {})
        name, event, data = listener.next()
        self.assertEqual((name, event, json.loads(data)), ("py-room", "hello", {"text": "Grüße 🚀", "n": 1}))

    def test_trigger_reaches_several_channels(self):
        listener = self.listener()
        for name in ("py-a", "py-b", "py-c"):
            listener.subscribe(name, "hello")
        self.back.trigger(["py-a", "py-b", "py-c"], "hello", {})
        self.assertEqual({listener.next()[0] for _ in range(3)}, {"py-a", "py-b", "py-c"})

    def test_trigger_batch_arrives_in_order(self):
        listener = self.listener()
        listener.subscribe("py-batch", *(f"n{n}" for n in range(10)))
        answer = self.back.trigger_batch([{"channel": "py-batch", "name": f"n{n}", "data": {"n": n}} for n in range(10)])
        self.assertEqual(answer, {})
        self.assertEqual([listener.next()[1] for _ in range(10)], [f"n{n}" for n in range(10)])

    def test_many_events_arrive_once_and_in_order(self):
        listener = self.listener()
        listener.subscribe("py-many", "step")
        for n in range(200):
            self.back.trigger("py-many", "step", {"n": n})
        self.assertEqual([json.loads(listener.next()[2])["n"] for _ in range(200)], list(range(200)))
        self.assertTrue(listener.events.empty())

    def test_a_private_channel_signed_by_the_client_itself(self):
        listener = self.listener()
        listener.subscribe("private-py", "secret")
        self.back.trigger("private-py", "secret", "text")
        self.assertEqual(listener.next(), ("private-py", "secret", "text"))

    def test_a_private_channel_signed_by_the_server_library(self):
        listener = self.listener()
        auth = self.back.authenticate("private-py-library", listener.socket_id)["auth"]
        listener.subscribe("private-py-library", "secret", auth=auth)
        self.back.trigger("private-py-library", "secret", "text")
        self.assertEqual(listener.next(), ("private-py-library", "secret", "text"))

    def test_a_forged_private_channel_is_refused(self):
        listener = self.listener()
        listener.client.subscribe("private-py-forged", auth=f"{KEY}:{'0' * 64}")
        channel, event, data = take(listener.answers, "an answer")
        data = json.loads(data) if isinstance(data, str) else data
        self.assertEqual((event, channel, data["type"], data["status"]), ("pusher:subscription_error", "private-py-forged", "AuthError", 401))

    def test_socket_id_leaves_its_own_subscriber_out(self):
        listener, other = self.listener(), self.listener()
        for each in (listener, other):
            each.subscribe("py-exclude", "first", "second")
        self.back.trigger("py-exclude", "first", {}, listener.socket_id)
        self.back.trigger("py-exclude", "second", {})
        self.assertEqual(listener.next()[1], "second")
        self.assertEqual([other.next()[1], other.next()[1]], ["first", "second"])

    def test_client_events_reach_the_other(self):
        listener, other = self.listener(), self.listener()
        channel = listener.subscribe("private-py-chat", "client-typing", "fence")
        other.subscribe("private-py-chat", "client-typing")
        channel.trigger("client-typing", {"at": 1})
        self.assertEqual(other.next(), ("private-py-chat", "client-typing", {"at": 1}))
        self.back.trigger("private-py-chat", "fence", {})
        self.assertEqual(listener.next()[1], "fence", "the sender got its own event")

    def test_a_presence_channel_tells_who_is_there_who_comes_and_who_goes(self):
        ann, bob = self.listener({"user_id": "ann", "user_info": {"name": "Ann"}}), self.listener({"user_id": 22})
        ann.subscribe("presence-py", "pusher_internal:member_added", "pusher_internal:member_removed")
        self.assertEqual(ann.acknowledged, {"presence": {"count": 1, "ids": ["ann"], "hash": {"ann": {"name": "Ann"}}}})
        bob.subscribe("presence-py")
        self.assertEqual(bob.acknowledged["presence"]["count"], 2)
        self.assertEqual(json.loads(ann.next()[2]), {"user_id": 22, "user_info": {}})
        bob.client.unsubscribe("presence-py")
        self.assertEqual(json.loads(ann.next()[2]), {"user_id": 22})

    def test_channels_info_lists_what_is_occupied(self):
        # The library signs the MD5 of its empty body into each of these calls.
        self.listener({"user_id": 1}).subscribe("presence-py-info-a")
        self.listener().subscribe("py-info-b")
        self.assertEqual(self.back.channels_info("py-info-"), {"channels": {"py-info-b": {}}})
        self.assertEqual(self.back.channels_info("py-info-", ["subscription_count"]), {"channels": {"py-info-b": {"subscription_count": 1}}})
        self.assertEqual(self.back.channels_info("presence-py-info-", ["user_count"]), {"channels": {"presence-py-info-a": {"user_count": 1}}})
        self.assertLessEqual({"presence-py-info-a", "py-info-b"}, self.back.channels_info()["channels"].keys())

    def test_channel_info_counts(self):
        self.listener({"user_id": 1}).subscribe("presence-py-count")
        self.listener({"user_id": 1}).subscribe("presence-py-count")
        self.assertEqual(self.back.channel_info("presence-py-count"), {"occupied": True})
        counts = self.back.channel_info("presence-py-count", ["user_count", "subscription_count"])
        self.assertEqual(counts, {"occupied": True, "user_count": 1, "subscription_count": 2})
        self.assertEqual(self.back.channel_info("py-nobody"), {"occupied": False})

    def test_users_info_lists_members(self):
        self.assertEqual(self.back.users_info("presence-py-users"), {"users": []})
        self.listener({"user_id": 1}).subscribe("presence-py-users")
        self.assertEqual(self.back.users_info("presence-py-users"), {"users": [{"id": "1"}]})

    def test_a_cache_channel_keeps_its_last_event(self):
        self.back.trigger("cache-py", "state", {"n": 1})
        cache = self.back.channel_info("cache-py", ["cache"])["cache"]
        self.assertEqual(json.loads(cache["data"]), {"n": 1})

    def test_send_to_user_is_accepted(self):
        self.assertEqual(self.back.send_to_user("ann", "hello", {"n": 1}), {})

    def test_errors_of_the_server_become_the_librarys_exceptions(self):
        stranger = pusher.Pusher(app_id=APP_ID, key=KEY, secret="wrong", host="127.0.0.1", port=self.server.port, ssl=False)
        with self.assertRaises(pusher.errors.PusherBadAuth):
            stranger.trigger("py-room", "hello", {})
        with self.assertRaises(pusher.errors.PusherBadRequest):
            self.back.trigger("py-room", "pusher:reserved", {})
        with self.assertRaises(pusher.errors.PusherBadRequest):
            self.back.channel_info("py-room", ["user_count"])
        with self.assertRaises(pusher.errors.PusherBadRequest):
            self.back.users_info("py-room")


if __name__ == "__main__":
    unittest.main()
