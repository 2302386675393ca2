-- Kubernetes' exec, attach and port-forward inside WebSocket, for Wireshark and tshark: the messages of the channel
-- subprotocols, and the SPDY frames of the port-forward tunnel.
--
-- Dissects the messages: channel, payload, status, the terminal's size. It leaves the frames of WebSocket, JSON and SPDY to
-- Wireshark's dissectors, and changes nothing that those show. README.md says how to use it.

local channel = Proto("k8s_channel", "Kubernetes channel")
local tunnel = Proto("k8s_tunnel", "Kubernetes port-forward tunnel")

local subprotocols = {
    ["channel.k8s.io"] = { version = 1 },
    ["base64.channel.k8s.io"] = { version = 1, base64 = true },
    ["v4.channel.k8s.io"] = { version = 4 },
    ["v4.base64.channel.k8s.io"] = { version = 4, base64 = true },
    ["v5.channel.k8s.io"] = { version = 5 },
}
-- If none is named, the first is used.
local unnamed = subprotocols["channel.k8s.io"]
local tunnelled = "SPDY/3.1+portforward.k8s.io"

-- Each channel of exec: its name, and whether the client writes it.
local exec_channels = {
    [0] = { name = "stdin", client = true },
    [1] = { name = "stdout" },
    [2] = { name = "stderr" },
    [3] = { name = "error" },
    [4] = { name = "resize", client = true },
}
-- The channel of a v5 message that closes another.
local CLOSE = 255

local f = {
    id = ProtoField.uint8("k8s_channel.id", "Channel"),
    name = ProtoField.string("k8s_channel.name", "Name"),
    length = ProtoField.uint32("k8s_channel.length", "Payload length"),
    payload = ProtoField.bytes("k8s_channel.payload", "Payload"),
    status = ProtoField.string("k8s_channel.status", "Status"),
    reason = ProtoField.string("k8s_channel.reason", "Reason"),
    message = ProtoField.string("k8s_channel.message", "Message"),
    exit_code = ProtoField.uint32("k8s_channel.exit_code", "Exit code"),
    width = ProtoField.uint32("k8s_channel.width", "Width"),
    height = ProtoField.uint32("k8s_channel.height", "Height"),
    closes = ProtoField.uint8("k8s_channel.closes", "Closes channel"),
    port = ProtoField.uint16("k8s_channel.port", "Port"),
}
channel.fields = { f.id, f.name, f.length, f.payload, f.status, f.reason, f.message, f.exit_code, f.width, f.height, f.closes, f.port }

local t = {
    slice = ProtoField.uint32("k8s_tunnel.slice", "Bytes of the SPDY connection"),
    pending = ProtoField.uint32("k8s_tunnel.pending", "Bytes of an unfinished frame"),
}
tunnel.fields = { t.slice, t.pending }

local function malformed(name, text)
    return ProtoExpert.new(name, text, expert.group.MALFORMED, expert.severity.ERROR)
end
local e = {
    unknown = malformed("k8s_channel.unknown", "There is no such channel"),
    side = malformed("k8s_channel.wrong_side", "The other side writes this channel"),
    close = malformed("k8s_channel.bad_close", "A CLOSE is the two bytes ff and channel"),
    base64 = malformed("k8s_channel.bad_base64", "Not a digit and padded base64"),
    status = malformed("k8s_channel.bad_status", "Not a Status in JSON"),
    size = malformed("k8s_channel.bad_size", "Not a terminal's size in JSON"),
    port = malformed("k8s_channel.bad_port", "Not a port, two bytes"),
}
channel.experts = { e.unknown, e.side, e.close, e.base64, e.status, e.size, e.port }

local get = {
    stream = Field.new("tcp.stream"),
    uri = Field.new("http.request.uri"),
    code = Field.new("http.response.code"),
    protocol = Field.new("http.sec_websocket_protocol"),
    json = Field.new("json.path_with_value"),
    id = Field.new("k8s_channel.id"),
    slice = Field.new("k8s_tunnel.slice"),
}
local json, spdy = Dissector.get("json"), Dissector.get("spdy")

-- What is known of each TCP connection, by Wireshark's number.
local connections = {}

-- Wireshark starts again, with another file or other settings.
function channel.init()
    connections = {}
end

-- What a path asks for, in the API server's form, the kubelet's, or the runtime's; nil for other paths.
local function asked(uri)
    local path = uri:match("^[^?]*"):lower()
    local kinds = { exec = "exec", attach = "exec", portforward = "portforward" }
    local named = path:match("/pods/[^/]+/([^/]+)$")
    if named then
        return kinds[named]
    end
    for segment in path:gmatch("[^/]+") do
        if kinds[segment] then
            return kinds[segment]
        end
    end
end

-- Returns the connection of a packet, with what the packet adds. The head of an answer and the first message can share a packet.
local function connection(pinfo)
    local stream = get.stream()
    if not stream then
        return nil
    end
    local known = connections[stream.value]
    if not known then
        known = { messages = {}, slices = {}, flows = {} }
        connections[stream.value] = known
    end
    local uri, code = get.uri(), get.code()
    if uri then
        known.client, known.kind = pinfo.src_port, asked(uri.value)
    elseif code then
        local protocol = get.protocol()
        known.protocol = protocol and protocol.value or ""
    end
    return known
end

-- What a dissector found about the messages of a packet in the first pass, in order. When a packet is shown, it is dissected again,
-- alone; the number of our fields in the tree then tells which message is meant.
local function remembered(all, pinfo, before, find)
    local mine = all[pinfo.number]
    if not mine then
        mine = {}
        all[pinfo.number] = mine
    end
    if not pinfo.visited then
        mine[before] = find()
    end
    return mine[before]
end

-- Runs Wireshark's dissector on a payload, and returns what it found, by path.
local function members(range, pinfo, tree)
    local before = select("#", get.json())
    json:call(range:tvb(), pinfo, tree)
    local found = {}
    for at, info in ipairs({ get.json() }) do
        if at > before then
            local path, value = info.value:match("^([^:]*):(.*)$")
            if path then
                table.insert(found, { path = path:lower(), value = value })
            end
        end
    end
    return function(path)
        for _, member in ipairs(found) do
            if member.path == path then
                return member.value
            end
        end
        return nil
    end, found
end

local function exit_code(found)
    local reason
    for _, member in ipairs(found) do
        if member.path:match("^/details/causes/.*/reason$") then
            reason = member.value
        elseif member.path:match("^/details/causes/.*/message$") and reason == "ExitCode" then
            return tonumber(member.value)
        end
    end
end

local function status(range, pinfo, tree, root, version)
    if version < 4 then
        tree:add(f.message, range, range:string())
        return "error"
    end
    local member, found = members(range, pinfo, root)
    local says = member("/status")
    if says ~= "Success" and says ~= "Failure" then
        tree:add_proto_expert_info(e.status)
        return "error"
    end
    tree:add(f.status, range, says)
    for name, field in pairs({ reason = f.reason, message = f.message }) do
        if member("/" .. name) then
            tree:add(field, range, member("/" .. name))
        end
    end
    local code = exit_code(found)
    if not code then
        return says
    end
    tree:add(f.exit_code, range, code)
    return says .. ", exit code " .. code
end

local function resize(range, pinfo, tree, root)
    local member = members(range, pinfo, root)
    local width, height = tonumber(member("/width")), tonumber(member("/height"))
    if not width or not height then
        tree:add_proto_expert_info(e.size)
        return "resize"
    end
    tree:add(f.width, range, width)
    tree:add(f.height, range, height)
    return string.format("resize %dx%d", width, height)
end

-- A server's first message on a channel of port-forward is its port, the low byte first.
local function port(range, tree)
    if range:len() ~= 2 then
        tree:add_proto_expert_info(e.port)
        return "port?"
    end
    tree:add_le(f.port, range)
    return "port " .. range:le_uint()
end

-- Dissects a message, and returns its description in one line.
local function message(whole, subprotocol, known, pinfo, tree, root)
    local from_client = pinfo.src_port == known.client
    local id = whole(0, 1):uint()
    local range = whole:len() > 1 and whole(1) or nil
    if subprotocol.base64 then
        id = id - string.byte("0")
        local text = range and range:string() or ""
        if id < 0 or id > 9 or #text % 4 ~= 0 or not text:match("^[%w+/]*=?=?$") then
            tree:add_proto_expert_info(e.base64)
            return "base64?"
        end
        range = #text > 0 and ByteArray.new(text, true):base64_decode():tvb("Base64")() or nil
    end
    local before = #{ get.id() }
    tree:add(f.id, whole(0, 1), id)
    if id == CLOSE and subprotocol.version >= 5 then
        tree:add(f.name, whole(0, 1), "close")
        if whole:len() ~= 2 or not exec_channels[whole(1, 1):uint()] then
            tree:add_proto_expert_info(e.close)
            return "CLOSE?"
        end
        tree:add(f.closes, whole(1, 1))
        return "CLOSE " .. exec_channels[whole(1, 1):uint()].name
    end

    local forwards = known.kind == "portforward"
    local is
    if forwards then
        is = id % 2 == 0 and { name = "data", client = from_client } or { name = "error" }
    else
        is = exec_channels[id]
    end
    if not is then
        tree:add_proto_expert_info(e.unknown)
        return "channel " .. id .. "?"
    end
    tree:add(f.name, whole(0, 1), is.name)
    if from_client ~= (is.client or false) then
        tree:add_proto_expert_info(e.side)
    end
    local length = range and range:len() or 0
    tree:add(f.length, whole(0), length)
    local first = forwards and remembered(known.messages, pinfo, before, function()
        local seen = from_client or known.flows[id]
        known.flows[id] = known.flows[id] or not from_client
        return not seen
    end)
    if not range then
        return is.name .. " (empty)"
    end
    tree:add(f.payload, range)
    if first then
        return is.name .. " " .. port(range, tree)
    elseif forwards then
        return string.format("%s %d (%d)", is.name, id, length)
    elseif is.name == "error" then
        return status(range, pinfo, tree, root, subprotocol.version)
    elseif is.name == "resize" then
        return resize(range, pinfo, tree, root)
    end
    return string.format("%s (%d)", is.name, length)
end

local function show(pinfo, tree, proto, line)
    tree:append_text(", " .. line)
    pinfo.cols.protocol = proto
    pinfo.cols.info:append(" " .. line)
end

local function dissect_channel(tvb, pinfo, root)
    local known = connection(pinfo)
    local subprotocol = subprotocols[known.protocol] or unnamed
    local tree = root:add(channel, tvb())
    show(pinfo, tree, "K8S", message(tvb, subprotocol, known, pinfo, tree, root))
    return tvb:len()
end

-- Returns how many of the bytes are complete SPDY frames, and how many bytes the next frame needs.
local function whole_frames(bytes)
    local at = 1
    while #bytes - at + 1 >= 8 do
        local high, middle, low = bytes:byte(at + 5, at + 7)
        local length = 8 + high * 65536 + middle * 256 + low
        if #bytes - at + 1 < length then
            return at - 1, length
        end
        at = at + length
    end
    return at - 1, 8
end

-- The messages of the tunnel are slices of a SPDY connection, cut anywhere. Frames are shown with the slice that completes them.
-- Returns the earlier bytes that belong to these frames, and their total length, or nil if the slice completes none.
local function complete(flow, slice)
    table.insert(flow.slices, slice)
    flow.have = flow.have + #slice
    if flow.have < flow.need then
        return nil
    end
    local bytes = table.concat(flow.slices)
    local whole, need = whole_frames(bytes)
    flow.slices, flow.have, flow.need = { bytes:sub(whole + 1) }, #bytes - whole, need
    return whole > 0 and { before = bytes:sub(1, #bytes - #slice), length = whole } or nil
end

local function dissect_tunnel(tvb, pinfo, root)
    local known, slice = connection(pinfo), tvb:raw()
    local before = #{ get.slice() }
    local tree = root:add(tunnel, tvb())
    tree:add(t.slice, tvb(), #slice)
    local frames = remembered(known.slices, pinfo, before, function()
        local flow = known.flows[pinfo.src_port]
        if not flow then
            flow = { slices = {}, have = 0, need = 8 }
            known.flows[pinfo.src_port] = flow
        end
        return { complete = complete(flow, slice), pending = flow.have }
    end)
    tree:add(t.pending, tvb(), frames.pending)
    if frames.complete then
        local bytes = (frames.complete.before .. slice):sub(1, frames.complete.length)
        spdy:call(ByteArray.new(bytes, true):tvb("SPDY frames"), pinfo, root)
    else
        show(pinfo, tree, "K8S", string.format("a slice of %d bytes", #slice))
    end
    return tvb:len()
end

function channel.dissector(tvb, pinfo, root)
    -- An empty message has nothing to show.
    if tvb:len() == 0 then
        return 0
    end
    return dissect_channel(tvb, pinfo, root)
end

function tunnel.dissector(tvb, pinfo, root)
    return tvb:len() > 0 and dissect_tunnel(tvb, pinfo, root) or 0
end

-- If no subprotocol was named, the path of the request decides.
channel:register_heuristic("ws", function(tvb, pinfo, root)
    local known = connection(pinfo)
    if not known or not known.kind or known.protocol ~= "" or tvb:len() == 0 then
        return false
    end
    dissect_channel(tvb, pinfo, root)
    return true
end)

-- Sees every request, and shows nothing.
local requests = Proto("k8s_requests", "Kubernetes requests")
function requests.dissector(_, pinfo)
    if get.uri() or get.code() then
        connection(pinfo)
    end
end
register_postdissector(requests)

local by_name = DissectorTable.get("ws.protocol")
for name in pairs(subprotocols) do
    by_name:add(name, channel)
end
by_name:add("", channel)
by_name:add(tunnelled, tunnel)
