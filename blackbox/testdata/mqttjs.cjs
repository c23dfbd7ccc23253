// A client on MQTT.js, for clients_test.go.
//
//   node mqttjs.cjs sub HOST PORT VERSION FILTER        prints "subscribed", then "> QOS TOPIC PAYLOAD" a line each
//   node mqttjs.cjs pub HOST PORT VERSION TOPIC TEXT    publishes "TEXT QOS" at QoS 0, 1 and 2, and ends
//
// The module is found through NODE_PATH; PROTOCOL is mqtt, mqtts, ws or wss, and CA the file
// with the authority.
const mqtt = require('mqtt')
const [verb, host, port, version, topic, text] = process.argv.slice(2)
const client = mqtt.connect({ host, port: Number(port), protocol: process.env.PROTOCOL || 'mqtt', path: '/mqtt', ca: process.env.CA && require('fs').readFileSync(process.env.CA), protocolVersion: Number(version), reconnectPeriod: 0 })

function fail (err) {
  console.error(err)
  process.exit(1)
}

client.on('error', fail)
client.on('connect', async () => {
  try {
    if (verb === 'sub') {
      const granted = await client.subscribeAsync(topic, { qos: 2 })
      if (granted[0].qos !== 2) fail(new Error('granted ' + granted[0].qos))
      console.log('subscribed')
      return
    }
    for (const qos of [0, 1, 2]) await client.publishAsync(topic, text + ' ' + qos, { qos })
    await client.endAsync()
  } catch (err) {
    fail(err)
  }
})
client.on('message', (topic, payload, packet) => console.log(`> ${packet.qos} ${topic} ${payload}`))
