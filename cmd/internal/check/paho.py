"""Runs one test of Eclipse paho.mqtt.testing's client suites, or lists them.

usage: paho.py FOLDER MODULE HOST PORT [TEST]

FOLDER is `interoperability` of a checkout; MODULE is client_test (MQTT 3.1.1)
or client_test5. One test per process, for a test that hangs or leaves a client
connected must not spoil the next.
"""
import importlib
import os
import sys
import unittest

folder, module, host, port = sys.argv[1:5]
sys.path.insert(0, folder)
suite = importlib.import_module(module)

# What the suite's own main sets before it runs.
suite.host, suite.port = host, int(port)
suite.topic_prefix = "client_test5/" if module == "client_test5" else ""
suite.topics = [suite.topic_prefix + t for t in ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA")]
suite.wildtopics = [suite.topic_prefix + t for t in ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#")]
suite.nosubscribe_topics = ("test/nosubscribe",)
for name in list(vars(suite.Test)):
    if name.endswith("_test"):  # misnamed, so that the suite's main never runs it
        setattr(suite.Test, "test_" + name[: -len("_test")], getattr(suite.Test, name))


def judged(test):
    """Some tests catch what they find, print it and return False, which no runner looks at."""

    def run(self):
        if test(self) is False:
            self.fail("Error: the test says that it failed")

    return run


for name in list(vars(suite.Test)):
    if name.startswith("test"):
        setattr(suite.Test, name, judged(getattr(suite.Test, name)))

if len(sys.argv) == 5:
    print("\n".join(unittest.TestLoader().getTestCaseNames(suite.Test)))
else:
    result = unittest.TextTestRunner(verbosity=0).run(unittest.TestSuite([suite.Test(sys.argv[5])]))  # a suite: its class has a set-up
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if result.wasSuccessful() else 1)  # its threads would keep it
