# A client on paho-mqtt for Python, for clients_test.go.
#
#   python3 pahopython.py sub SCHEME HOST PORT VERSION FILTER        prints "subscribed", then "> QOS TOPIC PAYLOAD" a line each
#   python3 pahopython.py pub SCHEME HOST PORT VERSION TOPIC TEXT    publishes "TEXT QOS" at QoS 0, 1 and 2, and ends
#
# SCHEME is mqtt, mqtts, ws or wss; CA is the file with the authority.
import os
import sys

import paho.mqtt.client as mqtt

verb, scheme, host, port, version, topic = sys.argv[1:7]
client = mqtt.Client(
    protocol=mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311,
    transport="websockets" if scheme in ("ws", "wss") else "tcp",
)
if scheme in ("mqtts", "wss"):
    client.tls_set(ca_certs=os.environ["CA"])
if scheme in ("ws", "wss"):
    client.ws_set_options(path="/mqtt")


def fail(what):
    print(what, file=sys.stderr, flush=True)
    os._exit(1)


def on_connect(client, userdata, flags, reason, properties=None):
    if (reason if version != "5" else reason.value) != 0:
        fail("connect: %s" % reason)
    if verb == "sub":
        client.subscribe(topic, qos=2)


def on_subscribe(client, userdata, mid, granted, properties=None):
    if [int(q) if version != "5" else q.value for q in granted] != [2]:
        fail("granted: %s" % granted)
    print("subscribed", flush=True)


def on_message(client, userdata, m):
    print("> %d %s %s" % (m.qos, m.topic, m.payload.decode()), flush=True)


client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect(host, int(port), 60)
if verb == "sub":
    client.loop_forever(retry_first_connection=False)
client.loop_start()
for qos in range(3):
    sent = client.publish(topic, "%s %d" % (sys.argv[7], qos), qos=qos)
    sent.wait_for_publish(60)
    if not sent.is_published():
        fail("QoS %d was not acknowledged" % qos)
client.disconnect()
client.loop_stop()
