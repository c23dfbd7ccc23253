/* A client on Paho C, for clients_test.go.
 *
 *   paho sub URI VERSION FILTER        prints "subscribed", then "> QOS TOPIC PAYLOAD" a line each
 *   paho pub URI VERSION TOPIC TEXT    publishes "TEXT QOS" at QoS 0, 1 and 2, and ends
 *
 * URI is tcp://, ssl://, ws:// or wss://, VERSION 4 or 5; CA is the file with the authority.
 */
#include <MQTTClient.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void fail(const char *what, int code)
{
	fprintf(stderr, "%s: %d %s\n", what, code, MQTTClient_strerror(code) ? MQTTClient_strerror(code) : "");
	exit(1);
}

static int arrived(void *context, char *topic, int len, MQTTClient_message *m)
{
	printf("> %d %s %.*s\n", m->qos, topic, m->payloadlen, (char *)m->payload);
	fflush(stdout);
	MQTTClient_freeMessage(&m);
	MQTTClient_free(topic);
	return 1;
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return 2;
	int five = !strcmp(argv[3], "5");
	char *ca = getenv("CA");
	MQTTClient c;
	MQTTClient_createOptions create = MQTTClient_createOptions_initializer;
	create.MQTTVersion = five ? MQTTVERSION_5 : MQTTVERSION_3_1_1;
	char id[64];
	snprintf(id, sizeof id, "paho-c-%d", (int)getpid());
	int rc = MQTTClient_createWithOptions(&c, argv[2], id, MQTTCLIENT_PERSISTENCE_NONE, NULL, &create);
	if (rc != MQTTCLIENT_SUCCESS)
		fail("create", rc);
	if (!strcmp(argv[1], "sub"))
		MQTTClient_setCallbacks(c, NULL, NULL, arrived, NULL);

	MQTTClient_SSLOptions ssl = MQTTClient_SSLOptions_initializer;
	ssl.trustStore = ca;
	ssl.enableServerCertAuth = 1;
	ssl.verify = 1;
	MQTTClient_connectOptions v3 = MQTTClient_connectOptions_initializer, v5 = MQTTClient_connectOptions_initializer5;
	MQTTClient_connectOptions *options = five ? &v5 : &v3;
	options->MQTTVersion = create.MQTTVersion;
	if (ca && *ca)
		options->ssl = &ssl;
	if (five) {
		MQTTResponse r = MQTTClient_connect5(c, options, NULL, NULL);
		rc = r.reasonCode;
		MQTTResponse_free(r);
	} else
		rc = MQTTClient_connect(c, options);
	if (rc != 0)
		fail("connect", rc);

	if (!strcmp(argv[1], "sub")) {
		if (five) {
			MQTTResponse r = MQTTClient_subscribe5(c, argv[4], 2, NULL, NULL);
			rc = r.reasonCode == 2 ? 0 : r.reasonCode;
			MQTTResponse_free(r);
		} else
			rc = MQTTClient_subscribe(c, argv[4], 2);
		if (rc != 0)
			fail("subscribe", rc);
		printf("subscribed\n");
		fflush(stdout);
		for (;;)
			pause();
	}
	for (int qos = 0; qos <= 2; qos++) {
		char text[256];
		snprintf(text, sizeof text, "%s %d", argv[5], qos);
		MQTTClient_deliveryToken token = 0;
		if (five) {
			MQTTResponse r = MQTTClient_publish5(c, argv[4], strlen(text), text, qos, 0, NULL, &token);
			rc = r.reasonCode;
			MQTTResponse_free(r);
		} else
			rc = MQTTClient_publish(c, argv[4], strlen(text), text, qos, 0, &token);
		if (rc != 0)
			fail("publish", rc);
		if (qos > 0 && (rc = MQTTClient_waitForCompletion(c, token, 60000)) != 0)
			fail("acknowledgement", rc);
	}
	rc = five ? MQTTClient_disconnect5(c, 10000, 0, NULL) : MQTTClient_disconnect(c, 10000);
	if (rc != 0)
		fail("disconnect", rc);
	MQTTClient_destroy(&c);
	return 0;
}
