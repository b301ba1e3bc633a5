// MLLP clients of @medplum/hl7, each with one message unanswered all the time:
// node clients.mjs PORT CLIENTS WARM_S SECONDS, the message on stdin. Says and counts what benchmarks/clients.py does.
import { Hl7Message } from '@medplum/core';
import { Hl7Client } from '@medplum/hl7';
import { readFileSync } from 'node:fs';

const [port, clientCount, warmS, seconds] = process.argv.slice(2).map(Number);
const fields = readFileSync(0, 'utf8').split('|');
const before = fields.slice(0, 9).join('|') + '|';
const after = '|' + fields.slice(10).join('|');
const measureAt = performance.now() + warmS * 1000;
const endAt = measureAt + seconds * 1000;
const tookMs = [];
let number = 0;
let errors = 0;
let cpuAtStart;

async function converse() {
  const client = new Hl7Client({ host: '127.0.0.1', port });
  await client.connect();
  for (let now = performance.now(); now < endAt; ) {
    const id = String(number++).padStart(fields[9].length, '0');
    const began = performance.now();
    const answer = await client.sendAndWait(Hl7Message.parse(before + id + after));
    now = performance.now();
    const msa = answer.getSegment('MSA');
    errors += msa?.getField(1)?.toString() !== 'AA' || msa.getField(2)?.toString() !== id;
    if (now >= measureAt && now < endAt) {
      if (!cpuAtStart) {
        cpuAtStart = process.cpuUsage();
        console.log('measuring');
      }
      tookMs.push(now - began);
    }
  }
  await client.close();
}

await Promise.all(Array.from({ length: clientCount }, converse));
const cpu = process.cpuUsage(cpuAtStart);
const answered = tookMs.length;
tookMs.sort((a, b) => a - b);
const [p50_us, p95_us, p99_us] = [50, 95, 99].map((share) =>
  Math.round((tookMs[Math.floor((answered * share) / 100)] ?? 0) * 1000)
);
const cpu_us = answered ? (cpu.user + cpu.system) / answered : 0;
const rate = answered / seconds;
console.log(JSON.stringify({ answered, elapsed_s: seconds, rate, p50_us, p95_us, p99_us, errors, cpu_us }));
