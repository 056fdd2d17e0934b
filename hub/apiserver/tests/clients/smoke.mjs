// What programs written with the official JavaScript client do, against the API that KUBECONFIG
// names. Node reads it from stdin in the directory where the client is installed.
//
// Each part prints `ok: NAME` when all that it asserts held; the first failure ends the program
// with a trace. The pod `talker` of `podLogs` has a log of three lines, which the caller supplies.
import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import * as k8s from '@kubernetes/client-node';

// A condition that does not come true within so long never will.
const PATIENCE = 60_000;
const GROUP = 'js.example.com';

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);

// As the client's own model spells it.
const definition = {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `gizmos.${GROUP}` },
    spec: {
        group: GROUP,
        scope: 'Namespaced',
        names: { plural: 'gizmos', singular: 'gizmo', kind: 'Gizmo' },
        versions: [{
            name: 'v1',
            served: true,
            storage: true,
            subresources: { status: {} },
            schema: { openAPIV3Schema: {
                type: 'object',
                properties: {
                    spec: { type: 'object', properties: {
                        size: { type: 'integer', maximum: 9 },
                        parts: {
                            type: 'array',
                            x_kubernetes_list_type: 'map',
                            x_kubernetes_list_map_keys: ['name'],
                            items: {
                                type: 'object',
                                required: ['name'],
                                properties: { name: { type: 'string' }, n: { type: 'integer' } },
                            },
                        },
                    } },
                    status: { type: 'object', properties: { phase: { type: 'string' } } },
                },
            } },
        }],
    },
};

function gizmo(name, spec) {
    const metadata = { name, namespace: 'default' };
    return { apiVersion: `${GROUP}/v1`, kind: 'Gizmo', metadata, spec };
}

function configMap(name, data, labels) {
    return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, labels }, data };
}

async function until(what, condition) {
    const end = Date.now() + PATIENCE;
    while (Date.now() < end) {
        if (await condition()) return;
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.fail(`never came true: ${what}`);
}

/** The status with which `act` is refused. */
async function refused(code, act) {
    try {
        await act();
    } catch (error) {
        assert.equal(error.code, code, String(error));
        // The client reads no body of a 401.
        if (code === 401) return undefined;
        const status = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
        assert.equal(status.kind, 'Status', String(error));
        return status;
    }
    assert.fail(`was not refused with ${code}`);
}

async function typedObjectsFromCreationToDeletion() {
    const namespace = 'default';
    const labels = { of: 'typed' };
    const made = await core.createNamespacedConfigMap({
        namespace, body: configMap('typed', { a: '1' }, labels) });
    assert.ok(made.metadata.creationTimestamp instanceof Date && made.metadata.uid);
    const body = { ...made, data: { a: '1', b: '2' } };
    const replaced = await core.replaceNamespacedConfigMap({ name: 'typed', namespace, body });
    assert.deepEqual(replaced.data, { a: '1', b: '2' });
    const stale = await refused(
        409, () => core.replaceNamespacedConfigMap({ name: 'typed', namespace, body }));
    assert.equal(stale.reason, 'Conflict');
    // The client's own choice of a patch is JSON Patch.
    const steps = [{ op: 'remove', path: '/data/a' }];
    const stepped = await core.patchNamespacedConfigMap({ name: 'typed', namespace, body: steps });
    assert.deepEqual(stepped.data, { b: '2' });
    const merged = await core.patchNamespacedConfigMap(
        { name: 'typed', namespace, body: { data: { b: null, c: '3' } } },
        k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.StrategicMergePatch));
    assert.deepEqual(merged.data, { c: '3' });
    const listed = await core.listNamespacedConfigMap({ namespace, labelSelector: 'of=typed' });
    assert.deepEqual(listed.items.map((item) => item.metadata.name), ['typed']);
    const missing = await refused(
        404, () => core.readNamespacedConfigMap({ name: 'nope', namespace }));
    assert.equal(missing.message, 'configmaps "nope" not found');
    const other = { preconditions: { uid: 'another' } };
    await refused(
        409, () => core.deleteNamespacedConfigMap({ name: 'typed', namespace, body: other }));
    const deleted = await core.deleteNamespacedConfigMap({ name: 'typed', namespace });
    assert.equal(deleted.status, 'Success');
    assert.equal(deleted.details.uid, made.metadata.uid);
}

async function pagesOfAList() {
    const namespace = 'default';
    for (const number of [1, 2, 3, 4, 5]) {
        await core.createNamespacedConfigMap({
            namespace, body: configMap(`page-${number}`, {}, { of: 'pages' }) });
    }
    const names = [];
    let _continue;
    do {
        const page = await core.listNamespacedConfigMap({
            namespace, limit: 2, labelSelector: 'of=pages', _continue });
        assert.ok(page.items.length <= 2);
        names.push(...page.items.map((item) => item.metadata.name));
        _continue = page.metadata._continue;
    } while (_continue);
    assert.deepEqual(names, [1, 2, 3, 4, 5].map((number) => `page-${number}`));
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'of=pages' });
    const left = await core.listNamespacedConfigMap({ namespace, labelSelector: 'of=pages' });
    assert.deepEqual(left.items, []);
}

async function aDefinitionAndItsObjects() {
    const definitions = config.makeApiClient(k8s.ApiextensionsV1Api);
    await definitions.createCustomResourceDefinition({ body: definition });
    const custom = config.makeApiClient(k8s.CustomObjectsApi);
    const where = { group: GROUP, version: 'v1', namespace: 'default', plural: 'gizmos' };
    const made = await custom.createNamespacedCustomObject({
        ...where, body: gizmo('z1', { size: 1 }) });
    assert.equal(made.metadata.generation, 1);
    const merge = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch);
    await custom.patchNamespacedCustomObject({
        ...where, name: 'z1', body: { spec: { size: 2 } } }, merge);
    await custom.patchNamespacedCustomObjectStatus({
        ...where, name: 'z1', body: { status: { phase: 'Ready' } } }, merge);
    const read = await custom.getNamespacedCustomObject({ ...where, name: 'z1' });
    assert.deepEqual([read.spec.size, read.status.phase], [2, 'Ready']);
    const tooBig = { ...where, name: 'z1', body: { spec: { size: 10 } } };
    const invalid = await refused(422, () => custom.patchNamespacedCustomObject(tooBig, merge));
    assert.equal(invalid.details.causes[0].field, 'spec.size');
}

async function anyObjectByItsKind() {
    const objects = k8s.KubernetesObjectApi.makeApiClient(config);
    await objects.create(gizmo('any', { size: 3 }));
    const read = await objects.read(gizmo('any'));
    assert.equal(read.spec.size, 3);
    const patch = gizmo('any', { size: 4 });
    const patched = await objects.patch(
        patch, undefined, undefined, undefined, undefined, k8s.PatchStrategy.MergePatch);
    assert.equal(patched.spec.size, 4);
    const listed = await objects.list(`${GROUP}/v1`, 'Gizmo', 'default');
    assert.deepEqual(listed.items.map((item) => item.metadata.name), ['any', 'z1']);
    await objects.delete(gizmo('any'));
    await refused(404, () => objects.read(gizmo('any')));
}

async function serverSideApply() {
    const objects = k8s.KubernetesObjectApi.makeApiClient(config);
    const apply = (manager, force, parts) => objects.patch(
        gizmo('applied', { parts }), undefined, undefined, manager, force,
        k8s.PatchStrategy.ServerSideApply);
    await apply('one', false, [{ name: 'a', n: 1 }]);
    const both = await apply('two', false, [{ name: 'b', n: 2 }]);
    assert.deepEqual(both.spec.parts, [{ name: 'a', n: 1 }, { name: 'b', n: 2 }]);
    const conflict = await refused(409, () => apply('two', false, [{ name: 'a', n: 9 }]));
    assert.match(conflict.message, /conflict with "one": \.spec\.parts\[name="a"\]\.n/);
    assert.equal(conflict.details.causes[0].reason, 'FieldManagerConflict');
    const forced = await apply('two', true, [{ name: 'a', n: 9 }]);
    assert.deepEqual(forced.spec.parts, [{ name: 'a', n: 9 }]);
    await objects.delete(gizmo('applied'));
}

async function aWatchAndItsBookmark() {
    const list = await core.listNamespacedConfigMap({ namespace: 'default' });
    const seen = [];
    const watch = new k8s.Watch(config);
    let ended;
    const done = new Promise((resolve) => { ended = resolve; });
    const controller = await watch.watch(
        '/api/v1/namespaces/default/configmaps',
        { resourceVersion: list.metadata.resourceVersion },
        (type, object) => seen.push(`${type} ${object.metadata.name}`),
        ended);
    await core.createNamespacedConfigMap({ namespace: 'default', body: configMap('watched', {}) });
    await core.deleteNamespacedConfigMap({ namespace: 'default', name: 'watched' });
    await until('both events came', () => seen.length === 2);
    assert.deepEqual(seen, ['ADDED watched', 'DELETED watched']);
    controller.abort();
    await done;
}

async function anInformerFollows() {
    const path = '/api/v1/namespaces/default/configmaps';
    const labelSelector = 'of=informer';
    const listed = () => core.listNamespacedConfigMap({ namespace: 'default', labelSelector });
    const body = configMap('followed', {}, { of: 'informer' });
    await core.createNamespacedConfigMap({ namespace: 'default', body });
    const informer = k8s.makeInformer(config, path, listed, labelSelector);
    const seen = [];
    for (const event of ['add', 'update', 'delete']) {
        informer.on(event, (object) => seen.push(`${event} ${object.metadata.name}`));
    }
    let failure;
    informer.on('error', (error) => { failure = error; });
    await informer.start();
    assert.equal(informer.get('followed', 'default').metadata.name, 'followed');
    const strategic = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.StrategicMergePatch);
    const patch = { namespace: 'default', name: 'followed', body: { data: { k: 'v' } } };
    await core.patchNamespacedConfigMap(patch, strategic);
    await until('the change is seen', () => seen.includes('update followed'));
    assert.equal(informer.get('followed', 'default').data.k, 'v');
    await core.deleteNamespacedConfigMap({ namespace: 'default', name: 'followed' });
    await until('the deletion is seen', () => seen.includes('delete followed'));
    assert.deepEqual(informer.list('default'), []);
    assert.deepEqual(seen, ['add followed', 'update followed', 'delete followed']);
    assert.equal(failure, undefined);
    await informer.stop();
}

async function podLogs() {
    const spec = { containers: [{ name: 'main', image: 'i' }] };
    await core.createNamespacedPod({
        namespace: 'default', body: { metadata: { name: 'talker' }, spec } });
    const whole = await core.readNamespacedPodLog({ namespace: 'default', name: 'talker' });
    assert.equal(whole, 'one\ntwo\nthree\n');
    const stream = new PassThrough();
    const followed = text(stream);
    await new k8s.Log(config).log('default', 'talker', 'main', stream, { follow: true, tailLines: 2 });
    assert.equal(await followed, 'two\nthree\n');
    await core.deleteNamespacedPod({ namespace: 'default', name: 'talker', gracePeriodSeconds: 0 });
}

async function whoMayDoWhat() {
    const namespace = 'default';
    await core.createNamespacedServiceAccount({ namespace, body: { metadata: { name: 'jsbot' } } });
    const spec = { audiences: [], expirationSeconds: 600 };
    const asked = await core.createNamespacedServiceAccountToken({
        namespace, name: 'jsbot', body: { spec } });
    const bot = new k8s.KubeConfig();
    bot.loadFromOptions({
        clusters: [config.getCurrentCluster()],
        users: [{ name: 'bot', token: asked.status.token }],
        contexts: [{ name: 'bot', cluster: config.getCurrentCluster().name, user: 'bot' }],
        currentContext: 'bot',
    });
    const me = await bot.makeApiClient(k8s.AuthenticationV1Api).createSelfSubjectReview({ body: {} });
    assert.equal(me.status.userInfo.username, 'system:serviceaccount:default:jsbot');
    const resourceAttributes = { namespace, verb: 'list', resource: 'secrets' };
    const review = await bot.makeApiClient(k8s.AuthorizationV1Api).createSelfSubjectAccessReview({
        body: { spec: { resourceAttributes } } });
    assert.equal(review.status.allowed, false);
    const forbidden = await refused(
        403, () => bot.makeApiClient(k8s.CoreV1Api).listNamespacedSecret({ namespace }));
    assert.match(forbidden.message, /jsbot" cannot list resource "secrets"/);
    await core.deleteNamespacedServiceAccount({ namespace, name: 'jsbot' });
    await refused(401, () => bot.makeApiClient(k8s.CoreV1Api).listNamespacedSecret({ namespace }));
}

async function theServerIsHealthyAndTellsItsVersion() {
    const health = new k8s.Health(config);
    assert.deepEqual([await health.livez({}), await health.readyz({})], [true, true]);
    const version = await config.makeApiClient(k8s.VersionApi).getCode();
    assert.deepEqual([version.major, version.minor], ['1', '32']);
}

const parts = [
    theServerIsHealthyAndTellsItsVersion,
    typedObjectsFromCreationToDeletion,
    pagesOfAList,
    aDefinitionAndItsObjects,
    anyObjectByItsKind,
    serverSideApply,
    aWatchAndItsBookmark,
    anInformerFollows,
    podLogs,
    whoMayDoWhat,
];
for (const part of parts) {
    await part();
    console.log('ok:', part.name);
}
