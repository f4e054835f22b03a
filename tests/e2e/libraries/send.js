// Calls as a customer's program makes them with Segment's library for Node. In and out go what send.py describes, but
// for the module and gzip, which this library has not.

const { Analytics } = require("@segment/analytics-node");

const told = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const errors = [];

const analytics = new Analytics({ writeKey: told.key, host: told.host });
analytics.on("error", (error) => errors.push({ error: String(error.reason), code: error.code, calls: 1 }));

for (const { type, ...fields } of told.calls) {
  if (fields.timestamp) {
    fields.timestamp = new Date(fields.timestamp);
  }
  analytics[type](fields);
}
analytics.closeAndFlush().then(() => process.stdout.write(JSON.stringify(errors)));
