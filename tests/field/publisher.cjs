// What another service does, in Node.js with the client `redis`: says that an image was built, asks for its deployment,
// and follows the streams until that has ended. Arguments: Redis' URL, the key prefix, the image, its id, the range.
// Prints one line of JSON: the type and the data of the entry that ended it.
const os = require('os')
const { randomUUID } = require('crypto')
const { createClient } = require('redis')

const [url, prefix, reference, imageId, rangeId] = process.argv.slice(2)

function entry (type, subject, data) {
  const source = `node@${os.hostname()}`
  return { id: randomUUID(), type, source, subject, time: new Date().toISOString(), data: JSON.stringify(data) }
}

async function follow (client, stream, last, wanted) {
  for (;;) {
    const answer = await client.xRead({ key: stream, id: last }, { BLOCK: 5000, COUNT: 100 })
    for (const { id, message } of answer ? answer[0].messages : []) {
      last = id
      const data = JSON.parse(message.data)
      if (wanted(message.type, data)) return { type: message.type, data }
    }
  }
}

async function main () {
  const client = createClient({ url })
  await client.connect()
  const built = await client.xAdd(`${prefix}:images`, '*',
    entry('image.built.v1', reference, { reference, image_id: imageId, push: 'always' }))
  const pushed = await follow(client, `${prefix}:images`, built, (type, data) =>
    type.startsWith('image.push') && data.image_id === imageId)
  if (pushed.type !== 'image.pushed.v1') return finish(client, pushed)
  const deploymentId = randomUUID()
  const asked = await client.xAdd(`${prefix}:deployments`, '*', entry('deployment.requested.v1', deploymentId,
    { deployment_id: deploymentId, range_id: rangeId, images: [reference] }))
  const ended = await follow(client, `${prefix}:deployments`, asked, (type, data) =>
    data.deployment_id === deploymentId && /succeeded|failed|cancelled/.test(type))
  return finish(client, ended)
}

async function finish (client, result) {
  await client.disconnect()
  console.log(JSON.stringify(result))
}

main().catch(problem => {
  console.error(problem)
  process.exit(1)
})
