// The MLLP server of @medplum/hl7, answering every message at once: node server.mjs PORT
import { Hl7Server } from '@medplum/hl7';

const server = new Hl7Server((connection) => {
  connection.addEventListener('message', ({ message }) => connection.send(message.buildAck()));
});
await server.start(Number(process.argv[2]));
process.stdin.on('end', () => process.exit(0)).resume();
