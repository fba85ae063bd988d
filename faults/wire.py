"""Faults of the gRPC server: whose call it is, what a peer may make it hold, what it tells a plugin and a subscriber."""

from __future__ import annotations

from faults.fault import Fault

REMOTE = "src/supervm_rt/transports/remote"
HTTP2 = f"{REMOTE}/http2.py"
SESSIONS = f"{REMOTE}/sessions.py"
TRANSPORT = f"{REMOTE}/transport.py"
SESSION_TESTS = "tests/remote/test_sessions.py"
STREAMING_TESTS = "tests/remote/test_streaming.py"
HOSTILE = "tests/remote/test_hostile_peers.py"
BOUNDS = "tests/remote/test_bounds.py"

FAULTS = (
    Fault(
        "token-of-another-peer",
        "whoever knows a session token speaks for its plugin",
        SESSIONS,
        "            if transport.introduction.peer.identity != protocol.peer.identity:\n                raise GRPCError",
        "            if not transport.introduction.peer.identity:\n                raise GRPCError",
        ("pytest", "tests/remote/test_tls.py::test_the_token_of_another_is_worth_nothing"),
    ),
    Fault(
        "token-outlives-its-generation",
        "a token of an earlier life is taken for one of the present",
        SESSIONS,
        "        if self._tokens.pop(transport.token, None) is not None and",
        "        if self._tokens.get(transport.token) is not None and",
        ("pytest", f"{SESSION_TESTS}::test_a_token_ends_with_its_life"),
    ),
    Fault(
        "frames-of-another-generation",
        "what a plugin says is counted to the life before",
        f"{REMOTE}/service.py",
        "chain, generation = transport.chain.encode(), transport.generation",
        "chain, generation = transport.chain.encode(), transport.generation - 1",
        ("pytest", f"{SESSION_TESTS}::test_what_is_said_belongs_to_the_life_that_says_it"),
    ),
    Fault(
        "v0-client-is-not-bound-to-its-connection",
        "a client that knows no token speaks for no plugin",
        SESSIONS,
        "        mine = self._of_connection.get(protocol, [])\n        if not mine:",
        "        mine = self._of_connection.get(protocol, [])[1:]\n        if not mine:",
        ("pytest", f"{SESSION_TESTS}::test_a_plugin_whose_connection_ends"),
    ),
    Fault(
        "plugin-outlives-its-connection",
        "a plugin whose connection was lost is not known to be gone",
        SESSIONS,
        "            if transport.exchange is None or transport.exchange.protocol is protocol:\n",
        "            if transport.exchange is not None and transport.exchange.protocol is not protocol:\n",
        ("pytest", f"{SESSION_TESTS}::test_a_registered_plugin_whose_connection_ends_before_its_exchange"),
    ),
    Fault(
        "newcomer-is-waited-for-without-end",
        "a peer that leaves while it registers leaves a plugin behind",
        SESSIONS,
        "            self._host.withdraw(said, self._taken)\n",
        "",
        ("pytest", f"{SESSION_TESTS}::test_who_leaves_while_it_registers_leaves_no_plugin_behind"),
    ),
    Fault(
        "peer-credentials-are-not-compared",
        "a socket that is open to some users is open to all",
        f"{REMOTE}/listening.py",
        'why = "" if user in allowed else',
        'why = "" if user >= 0 else',
        ("pytest", f"{HOSTILE}::test_users_that_are_not_named_are_refused_by_the_kernel_s_word"),
    ),
    Fault(
        "length-is-compared-when-the-body-is-there",
        "a message above the limit is kept before it is refused",
        f"{REMOTE}/_frames.pyx",
        "            if length > limit:\n",
        "            if length > limit and end - place - PREFIX_BYTES >= length:\n",
        ("pytest", f"{HOSTILE}::test_a_length_above_the_limit_is_refused_before_the_body_comes"),
    ),
    Fault(
        "credit-is-not-enforced",
        "a plugin that does not heed its credit is read all the same",
        TRANSPORT,
        "        return self._waiting >= self._window or self._count >= MAX_WAITING\n",
        "        return False\n",
        ("pytest", f"{BOUNDS}::test_frames_without_a_payload_fill_the_window_too"),
    ),
    Fault(
        "batch-has-no-bound",
        "a batch has as many messages as its length allows",
        f"{REMOTE}/_native/message.c",
        "*fault = batch->count++ < MESSAGE_MAX_BATCH ?",
        "*fault = batch->count++ < MESSAGE_MAX_BATCH * 1000 ?",
        ("pytest", "tests/remote/test_decoder.py"),
    ),
    Fault(
        "unknown-field-is-the-payload",
        "a field that this version does not know takes the place of block_bytes",
        f"{REMOTE}/_native/message.c",
        "        case 3: message->payload = field.bytes; break;",
        "        case 3:\n        case 900: message->payload = field.bytes; break;",
        ("pytest", "tests/remote/test_decoder.py"),
    ),
    Fault(
        "position-is-acknowledged-when-it-is-taken",
        "a plugin forgets what is not durable",
        TRANSPORT,
        "                self.exchange.credit += size\n",
        "                self.exchange.credit += size\n"
        "                self.exchange.position = frames[-1].position or self.exchange.position\n"
        "                self.exchange.poke()\n",
        ("pytest", f"{SESSION_TESTS}::test_a_position_is_acknowledged_once_it_is_durable_and_not_before"),
    ),
    Fault(
        "plugin-that-reconnects-begins-anew",
        "the position that was committed is not told",
        TRANSPORT,
        "            position,\n            self._window,\n",
        "            None,\n            self._window,\n",
        ("pytest", f"{SESSION_TESTS}::test_a_plugin_that_comes_again_takes_the_place_of_its_last_life"),
    ),
    Fault(
        "v0-client-is-told-what-it-takes-for-blocks",
        "positions and credit go to a client that does not know them",
        f"{REMOTE}/service.py",
        "            if exchange.revision == 0:\n",
        "            if exchange.revision < 0:\n",
        ("pytest", "tests/remote/test_v0_client.py"),
    ),
    Fault(
        "cursor-of-another-chain-is-taken",
        "a subscriber goes on in a chain at a place of another",
        "src/supervm_rt/store/feed/reader.py",
        "            if sorted(theirs) != sorted(request.chains):\n",
        "            if not theirs:\n",
        ("pytest", "tests/remote/test_streaming.py::test_a_cursor_is_of_the_chains_that_it_was_given_for"),
    ),
    Fault(
        "idle-time-is-never-reset",
        "a connection is closed although it had a call a moment ago",
        HTTP2,
        "        if streams:\n            self.busy_at = now\n",
        "        if streams:\n            pass\n",
        ("pytest", f"{HOSTILE}::test_a_connection_without_a_call_is_closed_and_its_time_begins_with_the_end_of_the_last"),
    ),
    Fault(
        "idle-time-is-always-reset",
        "a connection without a call stays for ever",
        HTTP2,
        "        elif now - self.busy_at > limits.idle:\n",
        "        elif now - now > limits.idle:\n",
        ("pytest", f"{HOSTILE}::test_a_connection_without_a_call_is_closed_and_its_time_begins_with_the_end_of_the_last"),
    ),
    Fault(
        "resets-cost-nothing",
        "calls can be begun and reset as fast as pings can be sent",
        HTTP2,
        "                        self._charge(_RESET_COST)\n",
        "                        self._charge(1)\n",
        ("pytest", f"{HOSTILE}::test_resets_are_dearer_than_other_frames"),
    ),
    Fault(
        "calls-that-were-reset-pile-up",
        "only HTTP/2's own streams are counted, of which those that were reset are none",
        HTTP2,
        "        if len(self.streams) >= 2 * connection.owner.server.limits.streams:\n",
        "        if len(self.streams) >= 1 << 30:\n",
        ("pytest", f"{HOSTILE}::test_calls_that_are_begun_and_reset_at_once_are_not_begun_without_end"),
    ),
    Fault(
        "header-block-without-a-bound",
        "the frames of a header block are kept up to sixteen megabytes",
        HTTP2,
        "_CONTROL_BYTES = 2 * _HEADER_LIST_BYTES\n",
        "_CONTROL_BYTES = 1 << 30\n",
        ("pytest", f"{HOSTILE}::test_a_header_block_in_frames_as_large_as_data_may_be"),
    ),
    Fault(
        "empty-message-takes-the-next-for-its-body",
        "a message without content is not answered, or not as what it is",
        f"{REMOTE}/messages.py",
        '        if size == 0:\n            return b""\n',
        "",
        ("fuzz.http2", "--seconds", "30", "--seed", "8800"),
    ),
    Fault(
        "call-of-a-peer-that-left-goes-on",
        "a call whose peer has gone is not ended",
        HTTP2,
        "            task.cancel()\n            self._cancelled.add(task)\n",
        "            self._cancelled.add(task)\n",
        ("fuzz.http2", "--seconds", "30", "--seed", "5000"),
    ),
    Fault(
        "stranger-while-opening",
        "a plugin that registers while the node is being opened is taken for none of its configuration",
        SESSIONS,
        "        if not await on_trio(self._host.opened, self.limits.register):",
        "        if not await on_trio(self._host.opened, 0.0) and not introduction:",
        ("pytest", f"{SESSION_TESTS}::test_a_plugin_that_comes_before_the_node_has_opened_is_the_configured_one"),
    ),
    Fault(
        "all-chains-of-this-run",
        "a stream of all chains leaves out those that an earlier run has mirrored",
        "src/supervm_rt/runtime/remote.py",
        "        return await self._runtime.stored_chains(cursor)",
        "        return tuple(self._runtime.chains)",
        ("pytest", f"{STREAMING_TESTS}::test_all_chains_are_those_of_the_store"),
    ),
    Fault(
        "any-version-of-a-library",
        "bounds are taken to hold with versions of libraries that they were never checked with",
        f"{REMOTE}/versions.py",
        "    return found[:2] == wanted[:2] and found >= wanted",
        "    return found >= wanted",
        ("pytest", "tests/remote/test_versions.py::test_what_is_let_in"),
    ),
    Fault(
        "a-block-has-no-time",
        "the kit for Python does not say a block's time",
        "src/supervm_rt/sdk/messages.py",
        "        parts.append(_time(time))",
        "        _time(time)",
        ("pytest", "tests/transports/test_agreement.py::test_what_plugins_say_of_blocks_leads_to_one_digest"),
    ),
)
