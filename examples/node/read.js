// Finds datasets and reads slices of them over gRPC. Batches are decoded as they come: one at a time is in memory.
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { credentials, loadPackageDefinition, Metadata, status } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { DataType, RecordBatchReader } from "apache-arrow";

const USAGE = `usage: node read.js QUERY                               finds datasets: "lfp rate > 500"; "" is all
       node read.js ANIMAL EXPERIMENT DATASET [SELECTION]  reads a slice: "0:1000, :8"
  --time START:STOP  rows by seconds of the series' own clock
  --units            numbers in the unit of the series
The server is H5FLIGHT_URL, the token H5FLIGHT_TOKEN.`;
const MESSAGE_BYTES_MAX = 256 << 20; // a row is never split, and may be a whole frame
const ASK_MS = 30_000;
const ROWS_SHOWN = 3;
const COLUMNS_SHOWN = 8;

const includeDirs = ["../../proto", "."].map((folder) => fileURLToPath(new URL(folder, import.meta.url)));
const how = { includeDirs, keepCase: true, longs: Number, defaults: true };
const contract = loadSync(["h5flight/v1/data.proto", "status.proto"], how);

function connect(url, token) {
  const [, scheme, address] = /^(grpc|grpc\+tls):\/\/([^/]+)$/.exec(url) ?? [];
  if (!address) throw new Error(`H5FLIGHT_URL is "${url}", not grpc://HOST:PORT or grpc+tls://HOST:PORT`);
  const security = scheme === "grpc" ? credentials.createInsecure() : credentials.createSsl();
  const { DataService } = loadPackageDefinition(contract).h5flight.v1;
  const service = new DataService(address, security, { "grpc.max_receive_message_length": MESSAGE_BYTES_MAX });
  const metadata = new Metadata();
  if (token) metadata.set("authorization", `Bearer ${token}`);
  return { service, metadata };
}

async function search({ service, metadata }, query) {
  for (let token = ""; ; ) {
    const answer = await new Promise((resolve, reject) => {
      const request = { query, page: { token } };
      const deadline = Date.now() + ASK_MS;
      service.Search(request, metadata, { deadline }, (error, value) => (error ? reject(error) : resolve(value)));
    });
    for (const { animal, experiment, dataset, shape, dtype } of answer.datasets) {
      console.log(`${animal}  ${experiment}  ${dataset}  ${dtype} (${shape.join(", ")})`);
    }
    token = answer.next_token;
    if (!token) return;
  }
}

async function read({ service, metadata }, request) {
  const reader = await RecordBatchReader.from(ipcStream(service.GetData(request, metadata)));
  await reader.open();
  const { fields, metadata: facts } = reader.schema;
  const columns = fields.slice(0, COLUMNS_SHOWN).map(({ name }) => ({ name, count: 0, sum: 0 }));
  console.log(`shape ${facts.get("h5flight.shape")} of ${facts.get("h5flight.dtype")}`);
  let rows = 0;
  for await (const batch of reader) {
    for (let row = 0; row < Math.min(batch.numRows, ROWS_SHOWN - rows); row++) {
      const cells = columns.map((_, at) => String(batch.getChildAt(at).get(row)).slice(0, 40));
      console.log(`row ${rows + row}: ${cells.join("  ")}`);
    }
    columns.forEach((column, at) => add(column, fields[at], batch.getChildAt(at)));
    rows += batch.numRows;
  }
  console.log(`${rows} rows`);
  for (const { name, count, sum } of columns) {
    if (count) console.log(`mean of ${name}: ${sum / count}`);
  }
  if (fields.length > columns.length) console.log(`and ${fields.length - columns.length} more columns`);
}

// FlightData messages as an Arrow IPC stream: for each a mark, the header's length, the header, the body.
async function* ipcStream(messages) {
  for await (const { data_header: header, data_body: body } of messages) {
    const prefix = Buffer.alloc(8, 0xff);
    prefix.writeInt32LE(Math.ceil(header.length / 8) * 8, 4);
    yield Buffer.concat([prefix, header, Buffer.alloc(-header.length & 7)]);
    if (body.length) yield body;
  }
}

// Adds the numbers of a batch to a column's sum; of tensors all elements. Texts, records, complex numbers: no mean.
function add(column, field, vector) {
  if (field.metadata.has("h5flight.complex") || field.metadata.has("h5flight.enum")) return;
  const values = DataType.isFixedSizeList(vector.type) ? vector.getChildAt(0) : vector;
  if (!DataType.isInt(values.type) && !DataType.isFloat(values.type)) return;
  for (const value of values) column.sum += Number(value); // integers of 64 bits are BigInt
  column.count += values.length;
}

// The stable reason that programs act on, and the sentence; in error.details grpc-js leaves "?" as %3F.
function told(error) {
  const [packed] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!packed) return error.details ? `${status[error.code]}: ${error.details}` : error.message;
  const { message, details } = contract["google.rpc.Status"].deserialize(packed);
  const info = details.find(({ type_url }) => type_url.endsWith("/google.rpc.ErrorInfo"));
  const reason = info ? contract["google.rpc.ErrorInfo"].deserialize(info.value).reason : status[error.code];
  return `${reason}: ${message}`;
}

async function main() {
  const options = { time: { type: "string" }, units: { type: "boolean" } };
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  if (![1, 3, 4].includes(positionals.length)) throw new Error(USAGE);
  const client = connect(process.env.H5FLIGHT_URL ?? "grpc://127.0.0.1:8815", process.env.H5FLIGHT_TOKEN);
  if (positionals.length === 1) return search(client, positionals[0]);
  const [animal, experiment, dataset, selection] = positionals;
  const request = { animal, experiment, dataset, selection, units: values.units ? "UNITS_FLOAT64" : "UNITS_STORED" };
  if (values.time !== undefined) {
    const [start_s, stop_s] = values.time.split(":").map((text) => (text ? Number(text) : undefined));
    request.time = { start_s, stop_s };
  }
  return read(client, request);
}

main().catch((error) => {
  console.error(told(error));
  process.exitCode = 1;
});
